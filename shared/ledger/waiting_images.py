"""The images that wait for a worker: how many, since when, and of which stores."""

from dataclasses import dataclass
from typing import Any, Final

from shared.storage.mongo import Db, deadline

MAX_STORES: Final = 100
MAX_READ: Final = 20_000
"""The documents of at most so many images are read, those first that were accepted first. This takes about a tenth of a second."""
_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class StoreWaiting:
    """The number of waiting images of a store, and for how many seconds the oldest has waited."""

    store_name: str
    waiting: int
    oldest_age_s: float


@dataclass(frozen=True, slots=True)
class WaitingImages:
    """The images that are queued, and the number of those that workers hold.

    ``waiting`` and ``running`` are exact. The others are those of the ``MAX_READ`` images that were accepted first: ``by_store``
    has up to ``MAX_STORES`` stores, those with most images first. ``stores_more`` says that there are more images or stores.
    """

    waiting: int
    running: int
    oldest_age_s: float
    by_store: tuple[StoreWaiting, ...]
    stores_more: bool


def measure(db: Db) -> WaitingImages:
    """Measure the images that wait.

    The numbers are counted in an index. An image waits since it was queued again, or since it was accepted.

    :raises StoreAway: also when the reads take longer than 10 seconds.
    """
    begins = {"$ifNull": ["$work.queued_at", "$created_at"]}
    by_store = {"_id": "$store_name", "n": {"$sum": 1}, "oldest": {"$min": begins}}
    pipeline: list[dict[str, Any]] = [
        {"$match": {"status": "queued"}},
        {"$sort": {"batch_id": 1, "_id": 1}},
        {"$limit": MAX_READ},
        {"$group": by_store},
        {"$project": {"n": 1, "age_ms": {"$subtract": ["$$NOW", "$oldest"]}}},
        {"$sort": {"n": -1, "_id": 1}},
    ]
    with deadline(_DEADLINE_S):
        # With both states in one query, MongoDB would read each document, too.
        waiting, running = (db.images.count_documents({"status": state}, hint="rare_states") for state in ("queued", "processing"))
        rows = list(db.images.aggregate(pipeline, hint="rare_states"))
    stores = tuple(StoreWaiting(row["_id"], row["n"], max(0.0, row["age_ms"] / 1000)) for row in rows)
    oldest_s = max((store.oldest_age_s for store in stores), default=0.0)
    return WaitingImages(waiting, running, oldest_s, stores[:MAX_STORES], waiting > MAX_READ or len(stores) > MAX_STORES)
