"""Signs of life in MongoDB, by its clock alone: the workers' heartbeats and the sweep's lease."""

import os
import socket
from typing import Any, Final

from shared.media_types import Door
from shared.storage.mongo import Db, translated

BEAT_S: Final = 3.0
"""Pause between two heartbeats of a pool child."""
WORKER_SILENT_S: Final = 15
"""A worker of which nothing was heard for so long does not count."""
SWEEP_LEASE: Final = "sweep"
_FORGOTTEN_S: Final = 3600


def beat(db: Db, owner: str, door: Door, hindrance: str | None = None) -> None:
    """Say that a pool child of this host lives, and forget those that were last heard of an hour ago.

    :param owner: its name, another one for each child that ever was.
    :param door: where it takes its work.
    :param hindrance: code of what keeps it from taking any; its log says more.
    :raises StoreAway: MongoDB does not answer.
    """
    said = {"pid": os.getpid(), "host": {"$literal": socket.gethostname()}, "door": door.queue, "hindrance": {"$literal": hindrance}}
    seen = [{"$set": {"seen": "$$NOW"} | said}]
    with translated():
        db.workers.update_one({"_id": owner}, seen, upsert=True)
        db.workers.delete_many({"$expr": {"$lt": ["$seen", {"$subtract": ["$$NOW", _FORGOTTEN_S * 1000]}]}})


def worker_is_heard(db: Db, door: Door, host: str | None = None) -> bool:
    """See whether a worker that takes work behind a door has been heard of lately, of this host or of any.

    :raises StoreAway: MongoDB does not answer.
    """
    mine = {"hindrance": None} if host is None else {"hindrance": None, "host": host}
    with translated():
        return db.workers.find_one(_lately(door) | mine, {"_id": 1}) is not None


def hindrance(db: Db, door: Door, host: str | None = None) -> str | None:
    """Give the code of what keeps a worker behind a door from its work, as one has said lately, of this host or of any.

    :raises StoreAway: MongoDB does not answer.
    """
    mine = {"hindrance": {"$ne": None}} if host is None else {"hindrance": {"$ne": None}, "host": host}
    with translated():
        found = db.workers.find_one(_lately(door) | mine, {"hindrance": 1}, sort=[("seen", -1)])
    return None if found is None else str(found["hindrance"])


def _lately(door: Door) -> dict[str, Any]:
    return {"door": door.queue, "$expr": {"$gt": ["$seen", {"$subtract": ["$$NOW", WORKER_SILENT_S * 1000]}]}}


def sweep_is_led(db: Db) -> bool:
    """See whether a sweep holds the lease now.

    :raises StoreAway: MongoDB does not answer.
    """
    with translated():
        return db.leases.find_one({"_id": SWEEP_LEASE, "$expr": {"$gt": ["$until", "$$NOW"]}}, {"_id": 1}) is not None
