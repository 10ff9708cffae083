"""Heartbeats of workers and the lease of the sweep, in MongoDB and by its clock alone."""

import os
import socket
from typing import Any, Final

from shared.queues import WorkQueue
from shared.storage.mongo import Db, translate_errors

HEARTBEAT_INTERVAL_S: Final = 3.0
"""Pause between two heartbeats of a pool child."""
WORKER_TIMEOUT_S: Final = 15
"""A worker without a heartbeat for this long does not count as alive."""
SWEEP_LEASE: Final = "sweep"
_FORGET_AFTER_S: Final = 3600


def send_heartbeat(db: Db, owner: str, work_queue: WorkQueue, impediment: str | None = None) -> None:
    """Record that a pool child of this host is alive; delete heartbeats that are older than an hour.

    :param owner: the child's name, unique among all children ever started.
    :param work_queue: the queue that it consumes.
    :param impediment: error code of what keeps it from working, if anything; its log has the details.
    :raises StoreAway: MongoDB does not answer.
    """
    fields = {"pid": os.getpid(), "host": {"$literal": socket.gethostname()}, "door": work_queue.name, "hindrance": {"$literal": impediment}}
    heartbeat = [{"$set": {"seen": "$$NOW"} | fields}]
    with translate_errors():
        db.workers.update_one({"_id": owner}, heartbeat, upsert=True)
        db.workers.delete_many({"$expr": {"$lt": ["$seen", {"$subtract": ["$$NOW", _FORGET_AFTER_S * 1000]}]}})


def is_worker_alive(db: Db, work_queue: WorkQueue, host: str | None = None) -> bool:
    """Whether a worker that consumes a queue, and can work, has sent a heartbeat lately.

    :param host: count only workers of this host.
    :raises StoreAway: MongoDB does not answer.
    """
    query = {"hindrance": None} if host is None else {"hindrance": None, "host": host}
    with translate_errors():
        return db.workers.find_one(_recent(work_queue) | query, {"_id": 1}) is not None


def find_impediment(db: Db, work_queue: WorkQueue, host: str | None = None) -> str | None:
    """Return the error code of what keeps a worker of a queue from working, by its latest heartbeat; None when there is none.

    :param host: look only at workers of this host.
    :raises StoreAway: MongoDB does not answer.
    """
    query = {"hindrance": {"$ne": None}} if host is None else {"hindrance": {"$ne": None}, "host": host}
    with translate_errors():
        found = db.workers.find_one(_recent(work_queue) | query, {"hindrance": 1}, sort=[("seen", -1)])
    return None if found is None else str(found["hindrance"])


def _recent(work_queue: WorkQueue) -> dict[str, Any]:
    return {"door": work_queue.name, "$expr": {"$gt": ["$seen", {"$subtract": ["$$NOW", WORKER_TIMEOUT_S * 1000]}]}}


def is_sweep_active(db: Db) -> bool:
    """Whether a sweep process holds the lease now.

    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        return db.leases.find_one({"_id": SWEEP_LEASE, "$expr": {"$gt": ["$until", "$$NOW"]}}, {"_id": 1}) is not None
