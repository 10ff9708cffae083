"""The heartbeats of workers and the lease of the sweep, both stored in MongoDB. Only MongoDB's clock is used."""

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.queues import IMAGES, QUEUES, WorkQueue
from shared.storage import exclusive_lease
from shared.storage.mongo import Db, Document, translate_errors

HEARTBEAT_INTERVAL_S: Final = 3.0
"""Seconds between two heartbeats of a pool child."""
WORKER_TIMEOUT_S: Final = 15
"""A worker counts as alive for this many seconds after its last heartbeat."""
SWEEP_LEASE: Final = "sweep"
_FORGET_AFTER_S: Final = 3600
_MIN_MEASURED_S: Final = 10.0
"""The rate of a worker that counts for a shorter time is unknown, because one group of images would make it far too high."""
_MAX_WORKERS: Final = 1000
_MAX_ALIVE: Final = 10_000
_IS_ALIVE: Final = {"$gt": ["$seen", {"$subtract": ["$$NOW", WORKER_TIMEOUT_S * 1000]}]}
_FIELDS: Final = dict.fromkeys(
    ("door", "host", "pid", "started_at", "seen", "hindrance", "model", "finished", "finished_in_s", "busy_finished", "busy_s"), 1
) | {"alive": _IS_ALIVE}


@dataclass(frozen=True, slots=True)
class Worker:
    """A pool child, as its last heartbeat describes it.

    ``queue`` is None if this version does not know it. Times are naive UTC by MongoDB's clock. ``model`` is
    ``{name, version, weights_sha256}`` of an image worker. ``finished`` and ``finished_in_s`` are how many images, inspections
    or jobs it has finished, and in how many seconds before its last heartbeat. ``busy_finished`` and ``busy_s`` are the same for
    the last seconds in which it held any, which can be up to an hour ago. ``started_at``, ``model`` and these four are None in
    the heartbeats of older versions.
    """

    id: str
    queue: WorkQueue | None
    host: str
    pid: int
    started_at: datetime | None
    last_seen: datetime
    is_alive: bool
    impediment: str | None
    model: dict[str, str] | None
    finished: int | None
    finished_in_s: float | None
    busy_finished: int | None
    busy_s: float | None

    @property
    def finished_per_minute(self) -> float | None:
        """What the worker has finished in a minute; None while it is unknown."""
        if self.finished is None or self.finished_in_s is None or self.finished_in_s < _MIN_MEASURED_S:
            return None
        return 60 * self.finished / self.finished_in_s

    @property
    def finished_per_busy_minute(self) -> float | None:
        """What the worker finishes in a minute in which it always has work; None while it is unknown."""
        return 60 * self.busy_finished / self.busy_s if self.busy_finished and self.busy_s else None


def send_heartbeat(
    db: Db,
    owner: str,
    work_queue: WorkQueue,
    impediment: str | None = None,
    *,
    model: Mapping[str, str] | None = None,
    finished: tuple[int, float] | None = None,
    busy: tuple[int, float] | None = None,
) -> None:
    """Record that a pool child on this host is alive, and delete heartbeats that are older than an hour.

    :param owner: name of the pool child, unique among all pool children that were ever started.
    :param work_queue: the work queue that the pool child consumes.
    :param impediment: code of the error that prevents the pool child from working, if any. The log of
        the pool child has the details.
    :param model: ``{name, version, weights_sha256}`` of the model with which an image worker processes images.
    :param finished: how many images, inspections or jobs the pool child has finished, and in how many seconds until now.
    :param busy: the same for the last seconds in which the pool child held any.
    :raises StoreAway: when MongoDB does not respond.
    """
    fields: Document = {"pid": os.getpid(), "host": {"$literal": socket.gethostname()}, "door": work_queue.name, "hindrance": {"$literal": impediment}}
    fields |= {"started_at": {"$ifNull": ["$started_at", "$$NOW"]}, "model": {"$literal": None if model is None else dict(model)}}
    if finished is not None:
        fields |= {"finished": finished[0], "finished_in_s": finished[1]}
    if busy is not None:
        fields |= {"busy_finished": busy[0], "busy_s": busy[1]}
    heartbeat = [{"$set": {"seen": "$$NOW"} | fields}]
    with translate_errors():
        db.workers.update_one({"_id": owner}, heartbeat, upsert=True)
        db.workers.delete_many({"$expr": {"$lt": ["$seen", {"$subtract": ["$$NOW", _FORGET_AFTER_S * 1000]}]}})


def list_workers(db: Db, *, after: str | None = None, limit: int = _MAX_WORKERS) -> list[Worker]:
    """Return the workers in ascending order of their ids. Those that have died are included for an hour.

    :param after: the id after which to begin; None for the first.
    :raises StoreAway: when MongoDB does not respond.
    """
    query = {} if after is None else {"_id": {"$gt": after}}
    with translate_errors():
        found = db.workers.find(query, _FIELDS).sort("_id", 1).limit(limit)
        return [_read(row) for row in found]


def list_live_workers(db: Db, work_queue: WorkQueue) -> list[Worker]:
    """Return the workers that consume the queue and are alive.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return [_read(row) for row in db.workers.find(_recent(work_queue), _FIELDS).limit(_MAX_ALIVE)]


def find_active_model(db: Db) -> dict[str, str] | None:
    """Return the model with which new images are processed: ``{name, version, weights_sha256}``.

    It is that of the image worker that was started last among those that are alive. If none is alive, it is that of the one
    that was seen last. None: no image worker with a model has been alive for an hour.

    :raises StoreAway: when MongoDB does not respond.
    """
    query = {"door": IMAGES.name, "model": {"$ne": None}}
    with translate_errors():
        for alive, order in (({"$expr": _IS_ALIVE}, "started_at"), ({}, "seen")):
            found = db.workers.find_one(query | alive, {"model": 1}, sort=[(order, -1), ("_id", -1)])
            if found is not None:
                return dict(found["model"])
    return None


def sum_rates(workers: Iterable[Worker]) -> float | None:
    """Return what all of these workers that are alive have finished in a minute; None if it is unknown of all of them."""
    rates = [rate for worker in workers if worker.is_alive and (rate := worker.finished_per_minute) is not None]
    return sum(rates) if rates else None


def estimate_rate(workers: Iterable[Worker]) -> float | None:
    """Return what those of these workers that are alive and can work finish in a minute in which all of them always have work.

    A worker of which this is unknown counts like the average of the others. None: it is unknown of all of them.
    """
    able = [worker for worker in workers if worker.is_alive and worker.impediment is None]
    rates = [rate for worker in able if (rate := worker.finished_per_busy_minute) is not None]
    return len(able) * sum(rates) / len(rates) if rates else None


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
    return {"door": work_queue.name, "$expr": _IS_ALIVE}


def is_sweep_active(db: Db) -> bool:
    """Return whether a sweep process is active, that is, whether the lease of the sweep is held now.

    :raises StoreAway: when MongoDB does not respond.
    """
    return exclusive_lease.find_holder(db, SWEEP_LEASE) is not None


def _read(row: Document) -> Worker:
    return Worker(
        id=row["_id"],
        queue=next((queue for queue in QUEUES if queue.name == row["door"]), None),
        host=row["host"],
        pid=row["pid"],
        started_at=row.get("started_at"),
        last_seen=row["seen"],
        is_alive=row["alive"],
        impediment=row["hindrance"],
        model=row.get("model"),
        finished=row.get("finished"),
        finished_in_s=row.get("finished_in_s"),
        busy_finished=row.get("busy_finished"),
        busy_s=row.get("busy_s"),
    )
