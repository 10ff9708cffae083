"""How a worker claims a job, keeps it, releases it, and loses it. ``shared.queue.leases`` defines the protocol."""

import random
from collections.abc import Sequence
from typing import Any, Final

from shared.jobs import changes
from shared.jobs.error_codes import failure
from shared.jobs.records import KEPT_S
from shared.queue.leases import Lease, LeasedCollection, now_plus
from shared.storage.mongo import Db, Document, deadline, translate_errors

LEASES: Final = LeasedCollection("jobs", expiries="attempts", set_on_claim={"claimed_at": "$$NOW"})
MAX_ATTEMPTS: Final = 5
"""A job fails when this many attempts in succession have ended without a part that was done."""
OUTAGE_DELAYS_S: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds until a job is tried again after environment errors in succession. The last one repeats."""
_TRIES: Final = 8
_EXPIRED_AT_ONCE: Final = 100


def claim(db: Db, owner: str, lease_s: float) -> Document | None:
    """Claim the job that has waited for the longest time; None if no job can be claimed.

    :param lease_s: seconds until the claim ends unless it is renewed.
    :raises StoreAway: when MongoDB does not respond.
    """
    for _ in range(_TRIES):
        with translate_errors():
            oldest = db.jobs.find_one(LEASES.claimable(), {"_id": 1}, sort=[("not_before", 1), ("_id", 1)], hint="claimable")
        if oldest is None:
            return None
        claimed = LEASES.claim_one(db, oldest["_id"], owner, lease_s)
        if claimed is not None:  # otherwise, another worker was faster, so look for another job
            return claimed
    return None


def renew(db: Db, owner: str, leases: Sequence[Lease], lease_s: float) -> set[Lease]:
    """Renew leases, so that each ends ``lease_s`` seconds from now, and return those that are still held.

    :raises StoreAway: when MongoDB does not respond.
    """
    return LEASES.renew(db, owner, leases, lease_s)


def release(db: Db, owner: str, leases: Sequence[Lease], delay_s: float = 0.0) -> None:
    """Requeue jobs that their owner will not continue now. They go behind the jobs that wait already.

    :param delay_s: seconds until they can be claimed again.
    :raises StoreAway: when MongoDB does not respond.
    """
    LEASES.release(db, owner, leases, delay_ms=int(delay_s * 1000))


def release_after_outage(db: Db, owner: str, lease: Lease) -> None:
    """Requeue a job after an environment error in one of its parts. It never fails because of that, but waits longer each time.

    :raises StoreAway: when MongoDB does not respond.
    """
    outages: Document = {"$ifNull": ["$outages", 0]}
    delays = [int(delay_s * 1000 * random.uniform(0.7, 1.0)) for delay_s in OUTAGE_DELAYS_S]
    delay = {"$arrayElemAt": [delays, {"$min": [outages, len(delays) - 1]}]}
    LEASES.release(db, owner, [lease], delay_ms=delay, change={"outages": {"$add": [outages, 1]}})


def release_after_failure(db: Db, owner: str, lease: Lease, delay_s: float, error: dict[str, str]) -> None:
    """Requeue a job after an unexpected error in one of its parts. After several such attempts in succession, it fails.

    :param delay_s: seconds until it can be claimed again.
    :param error: why the job failed if it is not requeued: ``{code, detail}``.
    :raises StoreAway: when MongoDB does not respond.
    """
    ends = {"$gte": ["$attempts", MAX_ATTEMPTS - 1]}
    failed = _failed(error)
    change: dict[str, Any] = {name: {"$cond": [ends, value, f"${name}"]} for name, value in failed.items() if name != "status"}
    change |= {"status": {"$cond": [ends, "failed", "queued"]}, "attempts": {"$add": ["$attempts", 1]}}
    if LEASES.release(db, owner, [lease], delay_ms=int(delay_s * 1000), change=change):
        changes.limit(db, [lease.id])


def expire_leases(db: Db, deadline_s: float = 10.0) -> int:
    """Requeue the jobs whose lease has expired because their worker has died (called by the sweep).

    If a worker has died during the transaction of a part, MongoDB keeps the job locked until it ends the transaction, which
    takes up to 15 s. Meanwhile, this fails with ``StoreAway``.

    A job fails (``worker_died``) when this has happened several times in succession without a part that was done.

    :returns: the number of jobs whose lease had expired.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        expired = [row["_id"] for row in db.jobs.find(LEASES.expired(), {"_id": 1}, hint="leases").limit(_EXPIRED_AT_ONCE)]
    if not expired:
        return 0
    with deadline(deadline_s):
        among = {"_id": {"$in": expired}}
        count = LEASES.expire(db, among=among, max_expiries=MAX_ATTEMPTS, exhausted=_failed(failure("worker_died")))
        changes.limit(db, expired)
    return count


def has_claimable(db: Db) -> bool:
    """Return whether a job can be claimed now.

    :raises StoreAway: when MongoDB does not respond.
    """
    return LEASES.has_claimable(db)


def _failed(error: dict[str, str]) -> Document:
    return {"status": "failed", "error": {"$literal": error}, "finished_at": "$$NOW", "expires_at": now_plus(KEPT_S)}
