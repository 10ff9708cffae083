"""Creates, reads, lists, and cancels jobs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores, stores_from_list, stores_to_list, within_query
from shared.clock import utc_now
from shared.errors import Conflict, Forbidden, NotFound
from shared.ids import new_id, time_of
from shared.jobs import changes
from shared.jobs.error_codes import omission
from shared.storage import schema
from shared.storage.mongo import Db, Document, deadline, translate_errors

MAX_UNFINISHED: Final = 20
"""The number of jobs of an account that may be queued or running. Concurrent requests may exceed it by a few."""
KEPT_S: Final = 30 * 86400
UNDO_S: Final = changes.UNDO_S
ENDED: Final = changes.ENDED
UNDOABLE: Final = frozenset({"bulk_tags"})
"""The kinds of jobs that can be undone."""
SCOPES: Final[Mapping[str, str]] = {"bulk_tags": "tags:write", "undo": "tags:write", "reprocess": "images:write"}
"""For each kind of jobs, the scope that its actor needs for each part of it, and whoever cancels it. The parameter ``scope`` of a
job is the scope that its actor needs instead, if there is one."""
_DEADLINE_MS: Final = 10_000
_WHOLE: Final = {"params": 0, "rest": 0, "chosen": 0}
"""The projection of a job that is shown. ``params`` can have ten thousand ids, and ``rest`` and ``chosen`` a thousand."""


@dataclass(frozen=True, slots=True)
class JobOwner:
    """Who has requested a job, and in which stores it may change images.

    ``account`` owns the job, ``actor`` is the person or key with whose rights it works, and ``by`` is the name that its
    changes have; None while access is open.
    """

    account: str
    actor: str
    by: str | None
    stores: AllowedStores


@dataclass(frozen=True, slots=True)
class JobAccess:
    """Which jobs somebody reaches: those of ``account``, or of all accounts if it is None, that change images only in ``stores``."""

    account: str | None
    stores: AllowedStores

    def query(self) -> Document:
        """Return the query for these jobs."""
        return ({} if self.account is None else {"account": self.account}) | within_query(self.stores)

    def check(self, job: Document | None) -> Document:
        """Return a job that is to be changed.

        :raises NotFound: when there is none, or it belongs to another account.
        :raises Forbidden: when it changes images in other stores (``foreign_store``).
        """
        if job is None or self.account not in {None, job["account"]}:
            raise _not_found()
        stores = stores_from_list(job["stores"])
        if self.stores is not None and (stores is None or not stores <= self.stores):
            raise Forbidden("The job changes images in stores that these credentials do not include.", code="foreign_store")
        return job


ALL_JOBS: Final = JobAccess(None, None)


@dataclass(frozen=True, slots=True)
class PendingJobs:
    """The number of jobs in each state in which they have not ended.

    ``oldest_queued_s`` is the number of seconds since the oldest job that is queued now was requested; 0 without one. Jobs take
    turns, so it may have been running in the meantime.
    """

    queued: int
    running: int
    oldest_queued_s: float


def create(db: Db, session: ClientSession, kind: str, owner: JobOwner, params: Mapping[str, Any], *, total: int | None = None) -> Document:
    """Queue a job, in the caller's transaction, and return it as stored. After the commit, the caller publishes a wakeup.

    :param total: the number of images, if it is known.
    :raises Conflict: when the account has too many unfinished jobs (``too_many_jobs``).
    """
    query = {"account": owner.account, "status": {"$in": ["queued", "processing"]}}
    if db.jobs.count_documents(query, limit=MAX_UNFINISHED, session=session) >= MAX_UNFINISHED:
        detail = f"An account can have at most {MAX_UNFINISHED} unfinished jobs; wait until one ends, or cancel one."
        raise Conflict(detail, code="too_many_jobs", extra={"limit": "max_unfinished_jobs", "value": MAX_UNFINISHED})
    document: Document = schema.initial_document(schema.Job) | {
        "_id": new_id(),
        "kind": kind,
        "status": "queued",
        "total": total,
        "done": 0,
        "changed": 0,
        "full": 0,
        "is_limited": False,
        "created_at": utc_now(),
        "account": owner.account,
        "actor": owner.actor,
        "by": owner.by,
        "stores": stores_to_list(owner.stores),
        "params": dict(params),
        "fence": 0,
        "attempts": 0,
        "not_before": datetime(1970, 1, 1),
    }
    db.jobs.insert_one(document, session=session)
    return document


def get(db: Db, job_id: str, access: JobAccess) -> Document:
    """Return a job without its parameters.

    :raises NotFound: when ``access`` reaches no such job.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        found = db.jobs.find_one({"_id": job_id} | access.query(), _WHOLE)
    if found is None:
        raise _not_found()
    return found


def list_page(db: Db, access: JobAccess, after: str | None, limit: int) -> list[Document]:
    """Return up to ``limit`` jobs that ``access`` reaches, without their parameters, the newest first.

    :param after: id of the last job of the page before; None for the first page.
    :raises StoreAway: when MongoDB does not respond.
    """
    query = access.query()
    if after is not None:
        query["_id"] = {"$lt": after}
    with translate_errors():
        return list(db.jobs.find(query, _WHOLE).sort("_id", -1).limit(limit).max_time_ms(_DEADLINE_MS))


def cancel(db: Db, job_id: str, access: JobAccess, scopes: Collection[str] | None = None, *, deadline_s: float = 10.0) -> Document:
    """Cancel a job, and return it. A queued job ends at once, and a running one after the part that is being done.

    :param scopes: the scopes of the caller; None: all.
    :raises NotFound: when there is no such job.
    :raises Forbidden: when it changes images in stores other than those of ``access`` (``foreign_store``), or its kind needs
        a scope that the caller lacks (``missing_scope``; ``extra`` names it).
    :raises Conflict: when it has ended (``job_finished``).
    :raises StoreAway: when MongoDB does not respond.
    """
    is_queued = {"$eq": ["$status", "queued"]}
    change = {
        "status": {"$cond": [is_queued, "cancelled", "$status"]},
        "finished_at": {"$cond": [is_queued, "$$NOW", "$finished_at"]},
        "expires_at": {"$cond": [is_queued, {"$add": ["$$NOW", KEPT_S * 1000]}, "$$REMOVE"]},
        "cancel_requested": True,
    }
    kinds = [kind for kind, scope in SCOPES.items() if scopes is None or scope in scopes]
    query = {"_id": job_id} | access.query() | {"status": {"$in": ["queued", "processing"]}, "kind": {"$in": kinds}}
    with deadline(deadline_s):  # a part that is being done keeps the job locked
        found = db.jobs.find_one_and_update(query, [{"$set": change}], projection=_WHOLE, return_document=ReturnDocument.AFTER)
    if found is None:
        with translate_errors():
            job = access.check(db.jobs.find_one({"_id": job_id}, {"account": 1, "stores": 1, "kind": 1}))
        if job["kind"] not in kinds:
            scope = SCOPES[job["kind"]]
            raise Forbidden(f"These credentials lack the scope {scope}, which this job needs.", code="missing_scope", extra={"scope": scope})
        raise Conflict("The job has ended, so it cannot be cancelled.", code="job_finished")
    if found["status"] in ENDED:
        changes.limit(db, [job_id])
    return found


def read_pending(db: Db) -> PendingJobs:
    """Return how many jobs have not ended. No documents are read, only the entries of these jobs in an index.

    :raises StoreAway: when MongoDB does not respond.
    """
    chosen = {"status": {"$in": ["queued", "processing"]}}
    group = {"_id": "$status", "n": {"$sum": 1}, "oldest": {"$min": "$_id"}}
    with translate_errors():
        rows = db.jobs.aggregate([{"$match": chosen}, {"$group": group}], hint="pending", maxTimeMS=_DEADLINE_MS)
        states = {row["_id"]: row for row in rows}
    counts = {state: states[state]["n"] if state in states else 0 for state in ("queued", "processing")}
    oldest_s = (utc_now() - time_of(states["queued"]["oldest"])).total_seconds() if "queued" in states else 0.0
    return PendingJobs(counts["queued"], counts["processing"], max(0.0, oldest_s))


def undo_until(job: Document) -> datetime | None:
    """Return until when a job can be undone (naive UTC); None if it cannot, or has changed nothing."""
    if job["kind"] not in UNDOABLE or job["status"] not in ENDED or job["undone_by"] is not None:
        return None
    if not job["changed"] and "open_change" not in job:  # what a part that has not ended has changed is not counted yet
        return None
    until: datetime = job["finished_at"] + timedelta(seconds=UNDO_S)
    return until if until > utc_now() else None


def errors_of(job: Document) -> list[dict[str, str]]:
    """Return what responses show as the errors of a job: why it failed, and what it has left out, as ``{code, detail}``."""
    errors = [job["error"]] if job["error"] is not None else []
    if job["is_limited"]:
        errors.append(omission("rights_reduced"))
    errors += [omission("too_many_image_tags", job["full"])] if job["full"] else []
    return errors + [omission(code, count) for code, count in sorted(job.get("omitted", {}).items())]


def _not_found() -> NotFound:
    return NotFound("There is no such job.")
