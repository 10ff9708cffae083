"""Processes many images again, in a job: those that meet filters, in parts, in ascending order of their ids.

A part has three steps: the job records its images (``progress.choose``), they are queued (``reprocessing.reprocess_images``), and
the job advances (``progress.conclude``). If the worker dies in between, another one repeats the part with the same images. What
it has queued is known from the images themselves, whose history names the job. So it queues none twice, and counts each one.

A worker queues images only while it certainly holds the lease of the job: the time for this ends with the lease. So one that was
frozen does not queue the images of a job that has ended meanwhile.

The job does not queue more while many images are queued already. So its progress is true, cancelling it stops what is not queued
yet, and it does not fill the queue.

Images are left if they are not finished, if their batches also have images of stores in which the job may change nothing, or if
their batches cannot be opened again at this moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.client_session import ClientSession

from shared import failpoints
from shared.allowed_stores import AllowedStores
from shared.catalog import job_images, job_rights, stored_filters
from shared.catalog.stored_filters import TagDeleted
from shared.clock import utc_now
from shared.errors import TooSlow
from shared.ids import batch_of
from shared.jobs import progress, records
from shared.jobs.error_codes import failure
from shared.jobs.progress import Chosen, HeldJob, Part, Step
from shared.jobs.records import JobOwner
from shared.ledger import claims, reprocessing, whole_batches
from shared.ledger.filters import Filters
from shared.ledger.reprocessing import Options
from shared.storage.migrations import update_end
from shared.storage.mongo import Db, Document, run_transaction, translate_errors
from shared.storage.schema import ENDED_STATES, RARE_STATES

MAX_QUEUED: Final = 5000
"""While this many images are queued, whoever has queued them, a job of this kind waits."""
WAIT_S: Final = 5.0
"""The seconds after which a job that waits looks again."""
_PART: Final = 500
_QUEUE_S: Final = 30.0
"""Seconds in which the images of a part are queued, or less if the lease of the job ends earlier."""
_REMOVED: Final = "deleting"


@dataclass(frozen=True, slots=True)
class BulkReprocessing:
    """Which images to process again, and how.

    ``only`` is one of ``reprocessing.Only``. ``weights_sha256`` is the digest of the weights of the active model, which
    ``stale`` needs. ``error_code`` limits the images to those that failed with this code. ``scope`` is the scope that the actor
    needs for each part, if it is not that of the kind.
    """

    filters: Filters
    only: str
    options: Options
    weights_sha256: str | None = None
    error_code: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How many images of a part the job has queued, and the ids of the others that still exist, by whether they are finished."""

    queued: int
    unfinished: list[str]
    finished: list[str]


def request(db: Db, wanted: BulkReprocessing, owner: JobOwner, *, deadline_s: float = 10.0) -> str:
    """Queue a job that processes images again, and return its id. It is about images that were accepted until now.

    :param owner: who makes the request. The job is about images of the owner's stores.
    :raises Conflict: when the account has too many unfinished jobs (``too_many_jobs``), or an update of the service is not
        finished (``update_unfinished``).
    :raises StoreAway: when MongoDB does not respond. The job may still have been queued.
    """
    reprocessing.check_update(db)
    params: dict[str, Any] = {
        "filters": stored_filters.to_document(wanted.filters),
        "only": wanted.only,
        "augmentations": None if wanted.options.augmentations is None else list(wanted.options.augmentations),
        "detect": wanted.options.detect,
    }
    further = {"priority": wanted.options.priority, "weights_sha256": wanted.weights_sha256, "error_code": wanted.error_code, "scope": wanted.scope}
    params |= {name: value for name, value in further.items() if value is not None}

    def write(session: ClientSession) -> Document:
        newest = db.images.find_one({}, {"_id": 1}, sort=[("_id", -1)], session=session)
        until = {"until": newest["_id"] if newest else ""}
        return records.create(db, session, "reprocess", owner, params | until)

    return str(run_transaction(db, write, deadline_s)["_id"])


def count(db: Db, job: HeldJob) -> int | None:
    """Return the number of images that a job is about; None if counting them takes too long.

    :raises StoreAway: when MongoDB does not respond.
    """
    try:
        with translate_errors():
            query = _query_of(db, job, job_rights.read(db, job).stores, {"_id": {"$lte": job.document["params"]["until"]}})
            return db.images.count_documents(query, maxTimeMS=job_images.SEARCH_MS)
    except (TooSlow, TagDeleted):
        return None


def do_part(db: Db, job: HeldJob) -> Step:
    """Do the next part of a job, or wait while many images are queued, or while an update of the service is not finished.

    :raises JobLost: when the worker has lost the lease. Whoever continues the job repeats the part.
    :raises StoreAway: when MongoDB does not respond. The same is true then.
    """
    rights = job_rights.read(db, job)
    if rights.is_nothing:
        return Step(None, job_rights.RIGHTS_LOST)
    if _must_wait(db, job):
        return Step(job, wait_s=WAIT_S)
    if job.chosen is not None:
        return Step(_do_chosen(db, job, job.chosen, rights))
    try:
        ids, cursor = _find_part(db, job, rights.stores)
    except TagDeleted:
        return Step(None, failure("tag_deleted"))
    if not ids:
        return Step(None if cursor is None else progress.conclude(db, job, Part(cursor, utc_now(), is_limited=rights.is_limited)))
    job, chosen = progress.choose(db, job, ids, ids[-1] if cursor is None else cursor)
    failpoints.reach("15-reprocessing-part-chosen")
    return Step(_do_chosen(db, job, chosen, rights))


def has_more(db: Db, job: HeldJob) -> bool:
    """Return whether images are left that a job is about.

    :raises StoreAway: when MongoDB does not respond.
    """
    rights = job_rights.read(db, job)
    if job.chosen is not None or rights.is_limited:
        return True
    try:
        ids, cursor = _find_part(db, job, rights.stores)
    except TagDeleted:
        return True
    return bool(ids) or cursor is not None


def settle_ended(db: Db, job_id: str) -> bool:
    """Count what the last part of a job has queued that has ended before this part has. What it has not queued is left.

    :returns: whether there was such a part.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        job = db.jobs.find_one({"_id": job_id, "status": {"$in": sorted(records.ENDED)}, "chosen": {"$exists": True}}, {"params": 0})
    if job is None:
        return False
    chosen = progress.chosen_of(job)
    reprocessing.complete(db, {batch_of(name) for name in chosen.ids})
    with translate_errors():
        queued = _read_outcome(db, job_id, chosen).queued
    progress.conclude_ended(db, job, Part(chosen.cursor, utc_now(), done=queued, changed=queued))
    return True


def _must_wait(db: Db, job: HeldJob) -> bool:
    """Return whether the job must wait. Many queued images do not stop a part that has begun."""
    if not update_end.is_update_finished(db):
        return True
    return job.chosen is None and claims.count_queued(db, at_most=MAX_QUEUED) >= MAX_QUEUED


def _do_chosen(db: Db, job: HeldJob, chosen: Chosen, rights: job_rights.JobRights) -> HeldJob:
    """Queue the images of a part, and count those that it has queued, also in an earlier attempt."""
    params = job.document["params"]
    augmentations = None if params["augmentations"] is None else tuple(params["augmentations"])
    options = Options(augmentations, params["detect"], job.document["by"], job.id, params.get("priority"), params["only"])
    choice = {"$and": [{"history.requests.job": {"$ne": job.id}}, _choice_of(params)]}
    deadline_s = min(_QUEUE_S, progress.read_lease_s(db, job))
    reprocessing.reprocess_images(db, chosen.ids, choice, options, rights.stores, deadline_s=deadline_s)
    failpoints.reach("15-reprocessing-part-queued")
    with translate_errors():
        outcome = _read_outcome(db, job.id, chosen)
        omitted = _count_omitted(db, outcome, choice, rights.stores)
    part = Part(
        chosen.cursor,
        utc_now(),
        done=len(chosen.ids),
        changed=outcome.queued,
        is_limited=rights.is_limited,
        omitted=omitted,
    )
    return progress.conclude(db, job, part)


def _read_outcome(db: Db, job_id: str, chosen: Chosen) -> _Outcome:
    """Return what has become of the images of a part. Errors of the driver pass."""
    fields = {"status": 1, "is_queued": {"$in": [job_id, {"$ifNull": ["$history.requests.job", []]}]}}
    query = {"_id": {"$in": list(chosen.ids)}, "status": {"$ne": _REMOVED}}
    rows = list(db.images.find(query, fields, hint="_id_"))
    left = {row["_id"]: row["status"] in ENDED_STATES for row in rows if not row["is_queued"]}
    by_end = {wanted: [name for name, is_finished in left.items() if is_finished is wanted] for wanted in (False, True)}
    return _Outcome(len(rows) - len(left), by_end[False], by_end[True])


def _count_omitted(db: Db, outcome: _Outcome, choice: Document, stores: AllowedStores) -> dict[str, int]:
    """Return how many images of a part were left, by the reason. Those that no longer meet the condition do not count."""
    wanted = {"$and": [{"_id": {"$in": outcome.finished}}, choice]}
    finished = [row["_id"] for row in db.images.find(wanted, {"_id": 1}, hint="_id_")] if outcome.finished else []
    foreign = whole_batches.find_foreign(db, {batch_of(name) for name in (*outcome.unfinished, *finished)}, stores)
    counts = {code: sum(batch_of(name) not in foreign for name in names) for code, names in (("not_finished", outcome.unfinished), ("batch_busy", finished))}
    return counts | {"foreign_store": len(outcome.unfinished) + len(finished) - sum(counts.values())}


def _find_part(db: Db, job: HeldJob, stores: AllowedStores) -> tuple[list[str], str | None]:
    """Return the ids of the images of the next part, and its cursor, as ``job_images.find`` does.

    :raises TagDeleted: when the tag by which the job chooses images was deleted.
    """
    params = job.document["params"]
    is_rare = {params["only"], params["filters"].get("status")}.intersection(RARE_STATES)
    return job_images.find(db, lambda ids: _query_of(db, job, stores, ids), job.cursor, params["until"], _PART, is_rare=bool(is_rare))


def _query_of(db: Db, job: HeldJob, stores: AllowedStores, also: Document) -> Document:
    """Return the query for the images of a job that also meet a condition. Errors of the driver pass."""
    params = job.document["params"]
    return stored_filters.read(db, None, params["filters"]).query(stores, _choice_of(params), also)


def _choice_of(params: Mapping[str, Any]) -> Document:
    """Return the query for the images that ``only`` and the error code choose."""
    augmentations = None if params["augmentations"] is None else tuple(params["augmentations"])
    choice = reprocessing.choose(params["only"], Options(augmentations, params["detect"]), params.get("weights_sha256"))
    return choice | ({"error.code": params["error_code"]} if "error_code" in params else {})
