"""Pauses work queues.

While a queue is paused, its workers finish what they hold and claim nothing more, and the sweep publishes no wakeups for it.
What was accepted waits. The state is in MongoDB, so it survives every restart, and it holds until somebody resumes the queue.

A worker reads the state before each claim. A claim that a worker has begun before the pause may still succeed after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pymongo.errors import DuplicateKeyError

from shared.queues import QUEUES, WorkQueue
from shared.storage.mongo import Db, translate_errors


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a queue.

    ``by`` is the name of the user or key that paused it, None while access is open. ``at`` is naive UTC by MongoDB's clock.
    ``age_s`` is the number of seconds since then.
    """

    by: str | None
    at: datetime
    age_s: float


@dataclass(frozen=True, slots=True)
class State:
    """Whether a queue is paused now, and when it was last resumed, in naive UTC by MongoDB's clock; None if never."""

    is_paused: bool
    resumed_at: datetime | None


_AGE_MS: Final = {"$subtract": ["$$NOW", "$paused_at"]}


def pause(db: Db, queue: WorkQueue, by: str | None) -> bool:
    """Pause a queue, and return whether it was running before. If it is paused already, nothing changes.

    :raises StoreAway: when MongoDB does not respond.
    """
    paused = {"paused": True, "paused_by": {"$literal": by}, "paused_at": "$$NOW"}
    with translate_errors():
        try:
            db.queues.update_one({"_id": queue.label, "paused": {"$ne": True}}, [{"$set": paused}], upsert=True)
        except DuplicateKeyError:  # the document exists, and says that the queue is paused
            return False
    return True


def resume(db: Db, queue: WorkQueue) -> bool:
    """Resume a queue, and return whether it was paused. The caller publishes a wakeup.

    :raises StoreAway: when MongoDB does not respond.
    """
    running = {"paused": False, "paused_by": None, "paused_at": None}
    change = {"$set": running, "$currentDate": {"resumed_at": True}}
    with translate_errors():
        return bool(db.queues.update_one({"_id": queue.label, "paused": True}, change).modified_count)


def is_paused(db: Db, queue: WorkQueue) -> bool:
    """Return whether a queue is paused. This reads one document by its id.

    :raises StoreAway: when MongoDB does not respond.
    """
    return read_state(db, queue).is_paused


def read_state(db: Db, queue: WorkQueue) -> State:
    """Return whether a queue is paused, and when it was last resumed. This reads one document by its id.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        found = db.queues.find_one({"_id": queue.label}, {"paused": 1, "resumed_at": 1}) or {}
    return State(found.get("paused", False), found.get("resumed_at"))


def read_pauses(db: Db) -> Mapping[WorkQueue, Pause]:
    """Return the pauses of the queues that are paused now.

    :raises StoreAway: when MongoDB does not respond.
    """
    fields = {"paused_by": 1, "paused_at": 1, "age_ms": _AGE_MS}
    with translate_errors():
        found = {row["_id"]: row for row in db.queues.find({"paused": True}, fields).limit(len(QUEUES))}
    return {
        queue: Pause(row["paused_by"], row["paused_at"], max(0.0, row["age_ms"] / 1000))
        for queue in QUEUES
        if (row := found.get(queue.label)) is not None
    }
