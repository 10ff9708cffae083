"""The heartbeats of workers and the lease of the sweep, both stored in MongoDB. Only MongoDB's clock is used."""

import os
import socket
from typing import Any, Final

from shared.queues import WorkQueue
from shared.storage import exclusive_lease
from shared.storage.mongo import Db, translate_errors

HEARTBEAT_INTERVAL_S: Final = 3.0
"""Seconds between two heartbeats of a pool child."""
WORKER_TIMEOUT_S: Final = 15
"""A worker counts as alive for this many seconds after its last heartbeat."""
SWEEP_LEASE: Final = "sweep"
_FORGET_AFTER_S: Final = 3600


def send_heartbeat(db: Db, owner: str, work_queue: WorkQueue, impediment: str | None = None) -> None:
    """Record that a pool child on this host is alive, and delete heartbeats that are older than an hour.

    :param owner: name of the pool child, unique among all pool children that were ever started.
    :param work_queue: the work queue that the pool child consumes.
    :param impediment: code of the error that prevents the pool child from working, if any. The log of
        the pool child has the details.
    :raises StoreAway: when MongoDB does not respond.
    """
    fields = {"pid": os.getpid(), "host": {"$literal": socket.gethostname()}, "door": work_queue.name, "hindrance": {"$literal": impediment}}
    heartbeat = [{"$set": {"seen": "$$NOW"} | fields}]
    with translate_errors():
        db.workers.update_one({"_id": owner}, heartbeat, upsert=True)
        db.workers.delete_many({"$expr": {"$lt": ["$seen", {"$subtract": ["$$NOW", _FORGET_AFTER_S * 1000]}]}})


def is_worker_alive(db: Db, work_queue: WorkQueue, host: str | None = None) -> bool:
    """Return whether a worker that consumes the queue and has no impediment is alive.

    :param host: consider only workers on this host.
    :raises StoreAway: when MongoDB does not respond.
    """
    query = {"hindrance": None} if host is None else {"hindrance": None, "host": host}
    with translate_errors():
        return db.workers.find_one(_recent(work_queue) | query, {"_id": 1}) is not None


def count_workers(db: Db, work_queue: WorkQueue) -> int:
    """Return the number of workers (pool children) that consume the queue, have no impediment, and are alive.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return db.workers.count_documents(_recent(work_queue) | {"hindrance": None})


def find_impediment(db: Db, work_queue: WorkQueue, host: str | None = None) -> str | None:
    """Return the code of the error that prevents a worker of a queue from working, or None if there is no such worker.

    Only workers that are alive are considered. If several of them have an impediment, the code from the latest
    heartbeat is returned.

    :param host: consider only workers on this host.
    :raises StoreAway: when MongoDB does not respond.
    """
    query = {"hindrance": {"$ne": None}} if host is None else {"hindrance": {"$ne": None}, "host": host}
    with translate_errors():
        found = db.workers.find_one(_recent(work_queue) | query, {"hindrance": 1}, sort=[("seen", -1)])
    return None if found is None else str(found["hindrance"])


def _recent(work_queue: WorkQueue) -> dict[str, Any]:
    return {"door": work_queue.name, "$expr": {"$gt": ["$seen", {"$subtract": ["$$NOW", WORKER_TIMEOUT_S * 1000]}]}}


def is_sweep_active(db: Db) -> bool:
    """Return whether a sweep process is active, that is, whether the lease of the sweep is held now.

    :raises StoreAway: when MongoDB does not respond.
    """
    return exclusive_lease.find_holder(db, SWEEP_LEASE) is not None
