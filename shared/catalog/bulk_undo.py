"""Undoes a job that has tagged images: reverts what it has changed, and nothing that was changed since.

A tag that the job has added is removed if the image still holds the entry of the job, which its name and time identify. A tag
that the job has removed is added again, with the name and the time that it had, unless the image has it again or the tag was
deleted. A part is what one part of that job has changed. It is done as ``bulk_parts`` describes.
"""

from collections.abc import Mapping

from pymongo.client_session import ClientSession

from shared.catalog import bulk_edits, bulk_parts, image_tags, job_rights, tags
from shared.catalog.bulk_edits import Edit
from shared.catalog.bulk_parts import PlannedPart
from shared.clock import utc_now
from shared.jobs import undo
from shared.jobs.progress import HeldJob, Part, Step
from shared.ledger.batch_images import visible_images
from shared.storage.mongo import Db, Document, translate_errors


def do_part(db: Db, job: HeldJob) -> Step:
    """Undo what the next part of the other job has changed.

    :raises JobLost: when the worker has lost the lease; see ``bulk_parts.do``.
    :raises StoreAway: when MongoDB does not respond.
    """
    job = bulk_parts.resume(db, job)
    rights = job_rights.read(db, job)
    if rights.is_nothing:
        return Step(None, job_rights.RIGHTS_LOST)
    if rights.is_limited:  # otherwise, the changes in the other stores could not be undone any more
        return Step(None, job_rights.RIGHTS_REDUCED)

    params = job.document["params"]
    if not job.cursor:
        bulk_parts.settle_ended(db, params["job"])  # otherwise, the sweep would do this later

    def plan(session: ClientSession) -> PlannedPart | Step:
        change = undo.next_change(db, session, params["job"], job.cursor or params["after"])
        return Step(None) if change is None else _plan_undo(db, session, change, job, rights)

    return bulk_parts.do_rest(db, job, plan) if job.rest else bulk_parts.do(db, job, plan)


def has_more(db: Db, job: HeldJob) -> bool:
    """Return whether something is left to undo.

    :raises StoreAway: when MongoDB does not respond.
    """
    if job.open_change is not None or job.rest:
        return True
    params = job.document["params"]
    with translate_errors():
        return undo.next_change(db, None, params["job"], job.cursor or params["after"]) is not None


def _plan_undo(db: Db, session: ClientSession, change: Document, job: HeldJob, rights: job_rights.JobRights) -> PlannedPart:
    """Plan how a change is undone. Of a part that has left a rest, only these images are undone."""
    rows = {row["id"]: row for row in change["images"] if not job.rest or row["id"] in job.rest}
    query = {"_id": {"$in": list(rows)}} | visible_images(rights.stores)
    images = list(db.images.find(query, bulk_edits.FIELDS, session=session))
    held = {entry["id"] for image in images for entry in image["tags"]}
    removed = {entry["id"] for row in change["images"] for entry in row["removed"]}
    present = tags.find_present_ids(db, session, held.union(removed, change["tags"]))
    edits = bulk_edits.without_too_long(
        [
            Edit(image, after, image_tags.find_removed(image["tags"], after, present))
            for image in images
            if (after := revert(image["tags"], rows[image["_id"]], change, present)) is not None
        ]
    )
    part = Part(
        undo.cursor_of(change),
        utc_now(),
        done=0 if job.rest else len(rows),
        changed=len(edits.possible),
        full=edits.full,
        is_rest=bool(job.rest),
    )
    return PlannedPart(part, edits.possible)


def revert(applied: list[Document], row: Document, change: Document, present: Mapping[str, str]) -> list[Document] | None:
    """Return the tags of an image after undoing what a job has changed; None if they stay the same.

    :param applied: the tags that the image holds (``AppliedTag``).
    :param row: what the job has changed of this image, which is an element of ``JobChange.images``.
    :param change: the ``JobChange``.
    :param present: what all these ids mean now; see ``tags.find_present_ids``.
    """
    before: dict[str, Document] = {}
    for entry in applied:
        if entry["id"] in present:
            before.setdefault(present[entry["id"]], entry | {"id": present[entry["id"]]})
    added = {present.get(change["tags"][position]) for position in row["added"]}
    after = {
        tag_id: entry for tag_id, entry in before.items() if not (tag_id in added and entry["by"] == change["by"] and entry["at"] == change["at"])
    }
    restored = {present[entry["id"]]: entry for entry in row["removed"] if entry["id"] in present}
    for tag_id, entry in restored.items():
        after.setdefault(tag_id, entry | {"id": tag_id})
    if after.keys() == before.keys():
        return None
    return sorted(after.values(), key=lambda entry: entry["at"]) if restored else list(after.values())
