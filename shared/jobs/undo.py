"""Creates the job that undoes another one, and reads what that one has changed."""

from dataclasses import replace
from datetime import timedelta

from pymongo.client_session import ClientSession

from shared.allowed_stores import stores_from_list
from shared.clock import utc_now
from shared.errors import Conflict
from shared.jobs import records
from shared.jobs.records import JobAccess, JobOwner
from shared.storage.mongo import Db, Document, run_transaction


def request(db: Db, job_id: str, access: JobAccess, owner: JobOwner, *, deadline_s: float = 10.0) -> Document:
    """Queue a job that undoes another one, and return it. The caller then publishes a wakeup.

    If an earlier undo of the same job was cancelled or has failed, the new one continues after it.

    The new job may change images in the stores in which the other one might. So it undoes all, or fails before the first part
    that it may not undo as a whole.

    :param access: which jobs the owner reaches.
    :param owner: who requests it.
    :raises NotFound: when there is no such job.
    :raises Forbidden: when the job changes images in stores other than those of ``access`` (``foreign_store``).
    :raises Conflict: when it is not finished (``job_unfinished``), was undone before (``already_undone``), or cannot be undone
        (``not_undoable``), or when the account has too many unfinished jobs (``too_many_jobs``).
    :raises StoreAway: when MongoDB does not respond. The job may still have been queued.
    """

    def write(session: ClientSession) -> Document:
        job = access.check(db.jobs.find_one({"_id": job_id}, {"params": 0}, session=session))
        cursor = _check(db, session, job)
        limited = replace(owner, stores=stores_from_list(job["stores"]))
        made = records.create(db, session, "undo", limited, {"job": job_id, "after": cursor}, total=job["changed"])
        db.jobs.update_one({"_id": job_id}, {"$set": {"undone_by": made["_id"]}}, session=session)
        kept_until = utc_now() + timedelta(seconds=records.KEPT_S)
        db.job_changes.update_many({"job": job_id}, {"$set": {"expires_at": kept_until}}, session=session)
        return made

    return run_transaction(db, write, deadline_s)


def next_change(db: Db, session: ClientSession | None, job_id: str, after: str) -> Document | None:
    """Return what the part of a job after the one with the cursor ``after`` has changed; None after the last."""
    return db.job_changes.find_one({"job": job_id, "_id": {"$gt": f"{job_id}:{after}"}}, sort=[("_id", 1)], session=session)


def cursor_of(change: Document) -> str:
    """Return the cursor of the part that has made a change."""
    return str(change["_id"]).partition(":")[2]


def _check(db: Db, session: ClientSession, job: Document) -> str:
    """Return the cursor after which the undo begins.

    :raises Conflict: when the job cannot be undone.
    """
    if job["kind"] not in records.UNDOABLE:
        raise Conflict("A job of this kind cannot be undone.", code="not_undoable")
    if job["status"] not in records.ENDED:
        raise Conflict("The job has not ended yet; cancel it first, or wait.", code="job_unfinished")
    if job["finished_at"] + timedelta(seconds=records.UNDO_S) <= utc_now():
        raise Conflict("A job can be undone only within a day of its end.", code="not_undoable")
    if job["undone_by"] is None:
        return ""
    earlier = db.jobs.find_one({"_id": job["undone_by"]}, {"status": 1, "cursor": 1, "params": 1}, session=session)
    if earlier is None or earlier["status"] not in {"failed", "cancelled"}:
        raise Conflict("The job was undone before.", code="already_undone", extra={"undone_by": job["undone_by"]})
    return str(earlier.get("cursor") or earlier["params"]["after"])
