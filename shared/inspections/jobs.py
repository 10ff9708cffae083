"""The life cycle of an inspection: it is requested, claimed, and then done or failed.

When its result is no longer fresh, a new request queues the inspection once more. The id of an inspection is derived
from the source and the recipe, so MongoDB itself ensures that a thousand concurrent requests for the same inspection
create one job. Writes are not journalled, because the service does not promise to keep an inspection: if one is lost,
the client requests it again. ``shared.queue.leases`` defines how a claim is held, renewed and lost.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from shared.errors import Environment, InspectionLost, NotFound, ShelfsightError, StoreAway
from shared.inspections import recipes
from shared.inspections.recipes import Describe, Recipe, Source
from shared.queue import pauses
from shared.queue.leases import Lease, LeasedCollection, now_plus
from shared.queues import INSPECTIONS
from shared.storage.mongo import Db, Document, translate_errors

LEASES: Final = LeasedCollection("inspections", write_concern=WriteConcern(w=1), expiries="losses", set_on_claim={"claimed_at": "$$NOW"})
_MAX_LOSSES: Final = 3
_ROUNDS: Final = 12
MAX_WAIT_S: Final = 300
"""Seconds after its request at which an inspection fails if it still waits for an inspector, or for its turn in one. If the queue
was paused since the request, they begin when it is resumed."""
UNKNOWN: Final = "This inspection does not exist or is no longer kept."
NOT_IN_TIME: Final = "No inspector was available in time; retry later."
_LOST: Final = InspectionLost("Every worker that started this inspection ended before the inspection was done.")
_TIMED_OUT: Final = Environment(NOT_IN_TIME)


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators from the last response of a source, and the SHA-256 digest of its content.

    With the validators, the next fetch can ask the source whether the image has changed since that response.
    """

    sha256: str
    url: str | None = None
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """An inspection as it was read from the database.

    ``result`` is the id of the result if the status is ``done``. ``error`` holds the members of a problem document if
    the status is ``failed``.
    """

    id: str
    status: str
    source: Source
    recipe: Recipe
    fresh_for_s: float
    """Seconds for which a ``done`` or ``failed`` inspection is still fresh, according to the database's clock at
    the time of the read. A request for a fresh inspection returns it without a new attempt. The value is 0 if the
    inspection is not fresh."""
    result: str | None
    error: dict[str, Any] | None
    validators: Validators | None
    fence: int
    age_s: float
    """Seconds from the request, or from the end of a later pause of the queue, to the claim, according to the database's clock, if
    ``claim`` returned this object. Otherwise, the value is 0."""

    @property
    def lease(self) -> Lease:
        """The lease of a claimed inspection."""
        return Lease(self.id, self.fence)

    @property
    def has_dream(self) -> bool:
        """Whether the inspection includes a dream."""
        return isinstance(self.recipe, Describe) and self.recipe.dream is not None

    @property
    def pending(self) -> bool:
        """Whether the inspection is queued or being processed."""
        return self.status in _PENDING

    @property
    def fresh(self) -> bool:
        """Whether a request for this inspection gets the stored result or error, without a new attempt."""
        return self.fresh_for_s > 0


_PENDING: Final = ("queued", "processing")
_PENDING_FILTER: Final[Document] = {"status": {"$in": list(_PENDING)}}
_FRESH: Final = {"$gt": ["$fresh_until", "$$NOW"]}  # also false if ``fresh_until`` is missing
_JOB_FIELDS: Final = dict.fromkeys(("status", "url", "upload", "recipe", "result", "error", "seen", "fence"), 1) | {
    "fresh_for_ms": {"$subtract": ["$fresh_until", "$$NOW"]}
}


def find(db: Db, job_id: str) -> Job | None:
    """Return the inspection with an id, or None if it does not exist.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        found = _jobs(db).find_one({"_id": job_id}, _JOB_FIELDS)
    return _read(found) if found else None


def get(db: Db, job_id: str) -> Job:
    """Return the inspection with an id.

    :raises NotFound: when it does not exist, or has been removed.
    :raises StoreAway: when MongoDB does not respond.
    """
    job = find(db, job_id)
    if job is None:
        raise NotFound(UNKNOWN)
    return job


def has_pending(db: Db, client: str, count: int) -> bool:
    """Return whether at least ``count`` inspections that a client has started are still pending.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return (
            _jobs(db).find_one(_PENDING_FILTER | {"client": client}, {"_id": 1}, skip=count - 1, hint="pending")
            is not None
        )


def request(
    db: Db, source: Source, recipe: Recipe, client: str, *, keep_s: float, anew: bool = False
) -> tuple[Job, bool]:
    """Request an inspection. If it is pending or still fresh, it is returned unchanged; otherwise, it is queued.

    :param client: the client to which the inspection is attributed if this call queues it.
    :param keep_s: seconds after which the inspection is removed.
    :param anew: whether to queue the inspection even if it is fresh. This is needed if its result has been removed.
    :returns: the inspection, and whether this call queued it. If it did, the caller must publish a wakeup.
    :raises StoreAway: when MongoDB does not respond.
    """
    job_id, token = recipes.job_id(source, recipe), uuid.uuid4().hex
    with translate_errors():
        keep: list[Any] = [{"$in": ["$status", list(_PENDING)]}, *([] if anew else [_FRESH])]
        queued: Document = {
            "status": "queued",
            "asked_by": token,
            "asked_at": "$$NOW",
            "not_before": "$$NOW",
            "url": {"$literal": source.url},
            "upload": source.sha256,
            "client": client,
            "recipe": {"$literal": recipes.to_document(recipe)},
            "expires_at": now_plus(keep_s),
            "owner": None,
            "losses": 0,
            "fence": {"$ifNull": ["$fence", 0]},
        }
        change = [{"$set": {name: {"$cond": [{"$or": keep}, f"${name}", value]} for name, value in queued.items()}}]
        for last in (False, True):
            try:
                found = _jobs(db).find_one_and_update(
                    {"_id": job_id}, change, upsert=True, return_document=ReturnDocument.AFTER
                )
                break
            except DuplicateKeyError:  # a concurrent request has created the document, so it exists now
                if last:
                    raise
        if found is not None and found["asked_by"] == token:
            return _read(found), True
    return get(db, job_id), False


def claim(
    db: Db, owner: str, size: int, lease_s: float, *, max_dreams: int | None = None, resumed_at: datetime | None = None
) -> list[Job]:
    """Claim up to ``size`` inspections, in the order in which they were requested.

    :param lease_s: seconds until the claims end unless they are renewed.
    :param max_dreams: maximum number of inspections with a dream. Further ones are left for another claim, and younger
        inspections are claimed in their place. By default, there is no limit.
    :param resumed_at: when the queue was last resumed (``pauses.State``). The time before does not count as waiting.
    :raises StoreAway: when MongoDB does not respond before any inspection has been claimed.
    """
    claimed: list[Job] = []
    for _ in range(_ROUNDS):
        with translate_errors():  # reading first costs less than trying updates that match no document
            room = size - len(claimed)
            ids = _find_oldest(db, room, room if max_dreams is None else max_dreams - sum(job.has_dream for job in claimed))
        lost = False
        for job_id in ids:
            try:
                found = LEASES.claim_one(db, job_id, owner, lease_s)
            except StoreAway:
                if claimed:  # the inspections claimed so far are held and can be processed
                    return claimed
                raise
            if found is None:
                lost = True
            else:
                since = found["asked_at"] if resumed_at is None else max(found["asked_at"], resumed_at)
                age_s = (found["lease_until"] - since).total_seconds() - lease_s
                claimed.append(_read(found, age_s))
        if not lost or len(claimed) == size:  # otherwise, another inspector was faster, so look for more
            break
    return claimed


def _find_oldest(db: Db, room: int, max_dreams: int) -> list[str]:
    """Return the ids of the oldest claimable inspections, of which at most ``max_dreams`` include a dream."""

    def find(condition: Document) -> list[Document]:
        fields = {"recipe.dream": 1, "asked_at": 1}
        return list(_jobs(db).find(LEASES.claimable() | condition, fields, hint="claimable").sort("asked_at", 1).limit(room))

    oldest = find({})
    dreams = [row for row in oldest if row["recipe"].get("dream") is not None]
    if len(dreams) > max_dreams:  # so there can be younger inspections without a dream that fit, too
        oldest = sorted(dreams[:max_dreams] + find({"recipe.dream": None}), key=lambda row: row["asked_at"])[:room]
    return [row["_id"] for row in oldest]


def renew(db: Db, owner: str, leases: Sequence[Lease], lease_s: float) -> set[Lease]:
    """Renew leases, so that each ends ``lease_s`` seconds from now.

    :returns: the leases that are still held.
    :raises StoreAway: when MongoDB does not respond.
    """
    return LEASES.renew(db, owner, leases, lease_s)


def finish(db: Db, owner: str, job: Job, result: str, validators: Validators, *, fresh_s: float, keep_s: float) -> bool:
    """Store the result of an inspection.

    :param result: id of the result.
    :param fresh_s: seconds for which requests for the same inspection return this result.
    :param keep_s: seconds after which the inspection is removed.
    :returns: whether ``owner`` still held the inspection. If not, nothing is stored.
    :raises StoreAway: when MongoDB does not respond.
    """
    seen = {
        "sha256": validators.sha256,
        "url": validators.url,
        "etag": validators.etag,
        "last_modified": validators.last_modified,
    }
    return _end(
        db, owner, job, {"status": "done", "result": result, "error": None, "seen": {"$literal": seen}}, fresh_s, keep_s
    )


def fail(db: Db, owner: str, job: Job, error: ShelfsightError, *, failed_s: float, keep_s: float) -> bool:
    """Store why an inspection failed.

    :param failed_s: seconds for which requests for the same inspection return this error.
    :param keep_s: seconds after which the inspection is removed.
    :returns: whether ``owner`` still held the inspection. If not, nothing is stored.
    :raises StoreAway: when MongoDB does not respond.
    """
    return _end(db, owner, job, {"status": "failed", "error": {"$literal": _problem(error)}}, failed_s, keep_s)


def release(db: Db, owner: str, leases: Sequence[Lease], delay_s: float = 0) -> None:
    """Requeue inspections that their owner will not finish now.

    :param delay_s: seconds until they can be claimed again.
    :raises StoreAway: when MongoDB does not respond.
    """
    LEASES.release(db, owner, leases, delay_ms=int(delay_s * 1000))


def expire_leases(db: Db, failed_s: float) -> int:
    """Requeue inspections whose lease has expired because their worker has died (called by the sweep).

    An inspection fails when its lease expires for the third time.

    :param failed_s: seconds for which requests for a failed inspection return its error.
    :returns: the number of expired leases.
    :raises StoreAway: when MongoDB does not respond.
    """
    exhausted = {"status": "failed", "error": {"$literal": _problem(_LOST)}, "fresh_until": now_plus(failed_s)}
    return LEASES.expire(db, max_expiries=_MAX_LOSSES, exhausted=exhausted)


def fail_overdue(db: Db, after_s: float, failed_s: float) -> int:
    """Fail inspections that are still queued ``after_s`` seconds after they were requested (called by the sweep).

    The cause is that too few inspectors are running, or none. While their queue is paused, none fails, and those that were requested
    before fail ``after_s`` seconds after it is resumed.

    :param failed_s: seconds for which requests for a failed inspection return its error.
    :returns: the number of inspections that this call failed.
    :raises StoreAway: when MongoDB does not respond.
    """
    queue = pauses.read_state(db, INSPECTIONS)
    if queue.is_paused:
        return 0
    since = {"$max": ["$asked_at", queue.resumed_at]}
    overdue = {"status": "queued", "$expr": {"$lt": [since, {"$subtract": ["$$NOW", int(after_s * 1000)]}]}}
    change = {"status": "failed", "error": {"$literal": _problem(_TIMED_OUT)}, "fresh_until": now_plus(failed_s)}
    with translate_errors():
        return _jobs(db).update_many(overdue, [{"$set": change}]).modified_count


def count_pending(db: Db) -> dict[str, int]:
    """Count the pending inspections by status: ``{"queued": n, "processing": n}``. Only these documents are read.

    :raises StoreAway: when MongoDB does not respond.
    """
    by_status = {"_id": "$status", "n": {"$sum": 1}}
    with translate_errors():
        groups = _jobs(db).aggregate([{"$match": _PENDING_FILTER}, {"$group": by_status}], hint="pending")
        return dict.fromkeys(_PENDING, 0) | {group["_id"]: group["n"] for group in groups}


def oldest_queued_s(db: Db) -> float:
    """Return for how many seconds the oldest queued inspection has waited since it was requested; 0 without one.

    :raises StoreAway: when MongoDB does not respond.
    """
    age = {"age_ms": {"$subtract": ["$$NOW", "$asked_at"]}}
    with translate_errors():
        found = _jobs(db).find_one({"status": "queued"}, age, sort=[("asked_at", 1)], hint="claimable")
    return 0.0 if found is None else max(0.0, found["age_ms"] / 1000)


def has_claimable(db: Db) -> bool:
    """Return whether any inspection can be claimed now.

    :raises StoreAway: when MongoDB does not respond.
    """
    return LEASES.has_claimable(db)


def _problem(error: ShelfsightError) -> Document:
    """Return the stored form of an error: the members of a problem document."""
    return {
        "status": error.status,
        "title": error.title,
        "code": error.code,
        "detail": error.detail,
        "extra": error.extra,
    }


def _end(db: Db, owner: str, job: Job, change: Document, fresh_s: float, keep_s: float) -> bool:
    change |= {"fresh_until": now_plus(fresh_s), "expires_at": now_plus(keep_s), "owner": None}
    with translate_errors():
        return bool(_jobs(db).update_one(LEASES.guard(owner, job.lease), [{"$set": change}]).modified_count)


def _jobs(db: Db) -> Collection[Document]:
    return LEASES.collection(db)


def _read(document: Document, age_s: float = 0.0) -> Job:
    seen = document.get("seen")
    return Job(
        id=document["_id"],
        status=document["status"],
        source=Source(document["url"], document["upload"]),
        recipe=recipes.from_document(document["recipe"]),
        fresh_for_s=max(0.0, (document.get("fresh_for_ms") or 0) / 1000),
        result=document.get("result"),
        error=document.get("error"),
        validators=Validators(**seen) if seen else None,
        fence=document["fence"],
        age_s=age_s,
    )
