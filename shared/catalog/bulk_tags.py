"""Tags many images: up to 1,000 in the transaction of the request, and more in a job, in parts that can be undone.

A request tags its images in one transaction; a thousand images take about a second. If the server is so busy that this takes too
long, the transaction is rolled back, and a job is made instead. A part of a job is done as ``bulk_parts`` describes. Each part
happens once, even if its worker dies, and another worker continues after it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.catalog import bulk_edits, bulk_parts, chosen_images, job_images, job_rights, stored_filters, tags
from shared.catalog.bulk_parts import PlannedPart
from shared.catalog.stored_filters import TagDeleted
from shared.clock import utc_now
from shared.errors import StoreAway, TooSlow
from shared.jobs import records
from shared.jobs.error_codes import failure
from shared.jobs.progress import HeldJob, Part, Step
from shared.jobs.records import JobOwner
from shared.ledger.batch_images import VISIBLE, visible_images
from shared.ledger.filters import Filters
from shared.storage.mongo import Db, Document, run_transaction, translate_errors

T = TypeVar("T")

MAX_IN_REQUEST: Final = 1000
"""The number of images that a request tags itself. For more, it makes a job."""
MAX_IDS: Final = 10_000
_PART: Final = 1000
_MIN_PART: Final = 100
_CHANGES_IN_PART: Final = 10_000
"""A part has fewer images if there are many tags, so that the document with its changes stays far below 16 MB."""
_TAG_DELETED: Final = failure("tag_deleted")


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """Which images to tag, by their ids or by filters, and the names of the tags to add and to remove."""

    ids: tuple[str, ...] | None
    filters: Filters | None
    add: tuple[str, ...]
    remove: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tagged:
    """How many images a request has matched, and how many of them it has changed."""

    matched: int
    changed: int
    full: int


def tag_images(db: Db, request: BulkRequest, owner: JobOwner, *, deadline_s: float = 10.0) -> Tagged | str:
    """Add and remove tags of images, or queue a job that does so, and return its id. Tags with new names are created.

    :param owner: who makes the request. Filters match only the images of the owner's stores.
    :param deadline_s: time limit in seconds. If few images are not tagged in half of it, a job is queued for them, too.
    :raises Invalid: when ids are those of no image (``unknown_image``).
    :raises Forbidden: when ids are those of images of other stores (``foreign_store``).
    :raises Conflict: when a job is needed, and the account has too many unfinished ones (``too_many_jobs``).
    :raises StoreAway: when MongoDB does not respond. The change may still have been made.
    """
    if not _is_large(db, request, owner):
        with suppress(StoreAway):  # if the transaction was committed nevertheless, the job finds nothing to change
            return _in_transaction(db, request, owner, _tag_now, deadline_s / 2)
        deadline_s /= 2
    return str(_in_transaction(db, request, owner, _create_job, deadline_s)["_id"])


def count(db: Db, job: HeldJob) -> int | None:
    """Return the number of images that a job is about; None if counting them takes too long.

    :raises StoreAway: when MongoDB does not respond.
    """
    if "ids" in job.document["params"]:
        return len(job.document["params"]["ids"])
    stores = job_rights.read(db, job).stores
    try:
        with translate_errors():
            query = _query_of(db, None, job, stores, {"_id": {"$lte": job.document["params"]["until"]}})
            return db.images.count_documents(query, maxTimeMS=job_images.SEARCH_MS)
    except (TooSlow, TagDeleted):
        return None


def do_part(db: Db, job: HeldJob) -> Step:
    """Do the next part of a job: up to 1,000 images, in ascending order of their ids.

    :raises JobLost: when the worker has lost the lease; see ``bulk_parts.do``.
    :raises StoreAway: when MongoDB does not respond.
    """
    job = bulk_parts.resume(db, job)
    rights = job_rights.read(db, job)
    if rights.is_nothing:
        return Step(None, job_rights.RIGHTS_LOST)
    try:
        if job.rest:
            return bulk_parts.do_rest(db, job, lambda session: _plan_part(db, session, job, job.rest, job.rest_cursor, rights))
        ids, cursor = _find_part(db, job, rights.stores)
        if not ids and cursor is None:
            return Step(None)
        last = ids[-1] if cursor is None else cursor
        return bulk_parts.do(db, job, lambda session: _plan_part(db, session, job, ids, last, rights))
    except TagDeleted:
        return Step(None, _TAG_DELETED)


def has_more(db: Db, job: HeldJob) -> bool:
    """Return whether images are left that a job is about.

    :raises StoreAway: when MongoDB does not respond.
    """
    rights = job_rights.read(db, job)
    if job.open_change is not None or job.rest or rights.is_limited:
        return True
    try:
        ids, cursor = _find_part(db, job, rights.stores)
    except TagDeleted:
        return True
    return bool(ids) or cursor is not None


def _in_transaction(
    db: Db, request: BulkRequest, owner: JobOwner, do: Callable[[Db, ClientSession, BulkRequest, JobOwner], T], seconds: float
) -> T:
    """Check the ids of a request, and do something with it, in one transaction."""

    def write(session: ClientSession) -> T:
        if request.ids is not None:
            chosen_images.check(db, session, request.ids, owner.stores)
        return do(db, session, request, owner)

    return run_transaction(db, write, seconds)


def _is_large(db: Db, request: BulkRequest, owner: JobOwner) -> bool:
    """Return whether the images are too many for a request, or cannot be counted in time."""
    if request.filters is None:
        return len(request.ids or ()) > MAX_IN_REQUEST
    try:
        with translate_errors():
            return db.images.count_documents(request.filters.query(owner.stores), limit=MAX_IN_REQUEST + 1, maxTimeMS=job_images.SEARCH_MS) > MAX_IN_REQUEST
    except TooSlow:
        return True


def _create_job(db: Db, session: ClientSession, request: BulkRequest, owner: JobOwner) -> Document:
    params: dict[str, Any] = {
        "add": sorted(set(tags.resolve(db, session, request.add, owner.by, create=True).values())),
        "remove": sorted(set(tags.resolve(db, session, request.remove, owner.by, create=False).values())),
    }
    if request.filters is not None:
        newest = db.images.find_one({}, {"_id": 1}, sort=[("_id", -1)], session=session)
        params |= {"filters": stored_filters.to_document(request.filters), "until": newest["_id"] if newest else ""}
    else:
        params["ids"] = sorted(request.ids or ())
    return records.create(db, session, "bulk_tags", owner, params)


def _tag_now(db: Db, session: ClientSession, request: BulkRequest, owner: JobOwner) -> Tagged:
    add = tags.resolve(db, session, request.add, owner.by, create=True)
    remove = tags.resolve(db, session, request.remove, owner.by, create=False)
    query = {"_id": {"$in": list(request.ids or ())}, "status": VISIBLE} if request.filters is None else request.filters.query(owner.stores)
    images, at = list(db.images.find(query, bulk_edits.FIELDS, session=session)), utc_now()
    ids = bulk_edits.read_ids(db, session, images, add.values(), remove.values())
    edits = bulk_edits.plan(images, ids, owner.by, at)
    bulk_edits.write(db, session, edits.possible, owner.by, at)
    return Tagged(len(images), len(edits.possible), edits.full)


def _plan_part(
    db: Db, session: ClientSession, job: HeldJob, ids: Sequence[str], cursor: str, rights: job_rights.JobRights
) -> PlannedPart | Step:
    """Plan, in a transaction, how the images of a part change that meet the conditions. The job fails if all tags were deleted."""
    params, by, at = job.document["params"], job.document["by"], utc_now()
    query = _query_of(db, session, job, rights.stores, {"_id": {"$in": list(ids)}})
    images = list(db.images.find(query, bulk_edits.FIELDS, session=session)) if ids else []
    tag_ids = bulk_edits.read_ids(db, session, images, params["add"], params["remove"])
    if not tag_ids.add and not tag_ids.remove and (params["add"] or params["remove"]):
        return Step(None, _TAG_DELETED)
    edits = bulk_edits.plan(images, tag_ids, by, at)
    part = Part(
        cursor,
        at,
        done=0 if job.rest else len(images),
        changed=len(edits.possible),
        full=edits.full,
        is_limited=rights.is_limited,
        tags=tag_ids.add,
        images=tuple(edit.describe(tag_ids) for edit in edits.possible),
        is_rest=bool(job.rest),
    )
    return PlannedPart(part, edits.possible)


def _query_of(db: Db, session: ClientSession | None, job: HeldJob, stores: AllowedStores, ids: Document) -> Document:
    """Return the query for the images of a job that also meet a condition for ``_id``. Errors of the driver pass.

    :raises TagDeleted: when the tag by which the job chooses images was deleted.
    """
    params = job.document["params"]
    if "filters" not in params:
        return visible_images(stores) | ids
    return stored_filters.read(db, session, params["filters"]).query(stores, ids)


def _find_part(db: Db, job: HeldJob, stores: AllowedStores) -> tuple[list[str], str | None]:
    """Return the ids of the images of the next part, and its cursor if that is not the last of these ids.

    Without ids and without a cursor, no image is left.
    """
    params = job.document["params"]
    size = max(_MIN_PART, min(_PART, _CHANGES_IN_PART // max(1, len(params["add"]) + len(params["remove"]))))
    if "ids" in params:
        return [name for name in params["ids"] if name > job.cursor][:size], None
    return job_images.find(db, lambda ids: _query_of(db, None, job, stores, ids), job.cursor, params["until"], size)
