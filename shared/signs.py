"""Signs of life in MongoDB, by its clock alone: the workers' heartbeats and the sweep's lease."""

import os
import socket
from typing import Final

from shared.contract import Door
from shared.mongo import Db, translated

BEAT_S: Final = 3.0
"""Pause between two heartbeats of a pool child."""
WORKER_SILENT_S: Final = 15
"""A worker of which nothing was heard for so long does not count."""
SWEEP_LEASE: Final = "sweep"
_FORGOTTEN_S: Final = 3600


def beat(db: Db, owner: str, door: Door) -> None:
    """Say that a pool child of this host lives, and forget those that were last heard of an hour ago.

    :param owner: its name, another one for each child that ever was.
    :param door: where it takes its work.
    :raises StoreAway: MongoDB does not answer.
    """
    seen = [{"$set": {"seen": "$$NOW", "pid": os.getpid(), "host": {"$literal": socket.gethostname()}, "door": door.queue}}]
    with translated():
        db.workers.update_one({"_id": owner}, seen, upsert=True)
        db.workers.delete_many({"$expr": {"$lt": ["$seen", {"$subtract": ["$$NOW", _FORGOTTEN_S * 1000]}]}})


def worker_is_heard(db: Db, door: Door, host: str | None = None) -> bool:
    """See whether a worker behind a door has been heard of lately, of this host or of any.

    :raises StoreAway: MongoDB does not answer.
    """
    fresh = {"door": door.queue, "$expr": {"$gt": ["$seen", {"$subtract": ["$$NOW", WORKER_SILENT_S * 1000]}]}}
    with translated():
        return db.workers.find_one(fresh if host is None else fresh | {"host": host}, {"_id": 1}) is not None


def sweep_is_led(db: Db) -> bool:
    """See whether a sweep holds the lease now.

    :raises StoreAway: MongoDB does not answer.
    """
    with translated():
        return db.leases.find_one({"_id": SWEEP_LEASE, "$expr": {"$gt": ["$until", "$$NOW"]}}, {"_id": 1}) is not None
