"""Convert queues, workers and failed images to the form that the API returns."""

from typing import Any

from shared.queue.heartbeats import Worker
from shared.queue.holdings import Holding
from shared.queue.pauses import Pause
from shared.queues import QUEUES, WorkQueue
from shared.storage.mongo import Document
from web.admin.measurements import Measured


def queue(work_queue: WorkQueue, measured: Measured, pause: Pause | None) -> dict[str, Any]:
    """Return a queue as the API shows it."""
    return {
        "name": work_queue.label,
        "paused": pause is not None,
        "paused_by": None if pause is None else pause.by,
        "paused_at": None if pause is None else pause.at,
        "waiting": measured.waiting,
        "running": measured.running,
        "oldest_age_s": round(measured.oldest_age_s, 1),
        "rate_per_minute": _rate(measured.rate_per_minute),
        "eta_s": measured.eta_s(is_paused=pause is not None),
        "workers": measured.workers,
        "by_store": [
            {"store_name": store.store_name, "waiting": store.waiting, "oldest_age_s": round(store.oldest_age_s, 1)} for store in measured.by_store
        ],
        "stores_more": measured.stores_more,
    }


def worker(found: Worker, held: Holding | None) -> dict[str, Any]:
    """Return a worker as the API shows it.

    :param held: what it holds, if anything.
    """
    return {
        "id": found.id,
        "queue": None if found.queue is None else found.queue.label,
        "host": found.host,
        "pid": found.pid,
        "started_at": found.started_at,
        "last_seen": found.last_seen,
        "alive": found.is_alive,
        "impediment": found.impediment,
        "model": found.model,
        "finished_per_minute": _rate(found.finished_per_minute) if found.is_alive else None,
        "doing": None if held is None else _doing(found, held),
    }


def dead_letter(image: Document) -> dict[str, Any]:
    """Return a failed image as the API shows it."""
    names = ("batch_id", "index", "store_name", "camera_id")
    error = image.get("error") or {}
    return {
        "id": image["_id"],
        **{name: image[name] for name in names},
        "code": error.get("code", ""),
        "detail": error.get("detail", ""),
        "attempts": image["work"]["fence"],
        "failed_at": image.get("finished_at"),
    }


def _doing(found: Worker, held: Holding) -> dict[str, Any]:
    counts = {queue.label: held.count if queue == found.queue else 0 for queue in QUEUES}
    return counts | {"ids": list(held.ids), "since": held.since}


def _rate(per_minute: float | None) -> float | None:
    return None if per_minute is None else round(per_minute, 2)
