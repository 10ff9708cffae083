"""Checks that every accepted image is accounted for, and measures the backlog."""

from dataclasses import dataclass
from typing import Final

from shared.allowed_stores import AllowedStores
from shared.ledger import sums
from shared.storage.mongo import Db, deadline, translate_errors

_BACKLOG_DEADLINE_S: Final = 30.0
FAILURES_READ: Final = 10_000
"""The number of images that ``failures_by_code`` reads."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The images that wait for a worker or are being processed.

    ``bytes`` is the size of all originals in all open batches, including the originals of finished images. Of a batch that was
    opened again, only the originals of the images that are processed again count.
    ``oldest_age_s`` is for how many seconds the batch has been open that has been open for the longest time: since it was
    accepted or, if it was later, since its images were last queued again.
    """

    images: int
    bytes: int
    oldest_age_s: float


def balance(db: Db) -> dict[str, int]:
    """Count all images that were ever accepted, by their outcome. See ``sums.count_interval`` for the result.

    The call reads the whole ledger and an index with all images, which takes a second for each million images. It is
    for tools and tests. The service reads ``sums.read_totals``, which the sweep keeps up to date with the same counts.
    """
    with translate_errors():
        return sums.count_interval(db)


def backlog(db: Db) -> Backlog:
    """Measure the backlog.

    Only indexes are read, and only their entries for open batches and unfinished images. The cost therefore grows with
    the backlog, but not with the number of images that are kept.

    :raises StoreAway: also when the reads take longer than 30 seconds.
    """
    open_batches = {"_id": None, "bytes": {"$sum": {"$ifNull": ["$open_bytes", "$bytes"]}}, "oldest": {"$min": {"$ifNull": ["$opened_at", "$created_at"]}}}
    age = {"bytes": 1, "age": {"$subtract": ["$$NOW", "$oldest"]}}
    with deadline(_BACKLOG_DEADLINE_S):
        images = sum(
            # With both states in one query, MongoDB would read each document, too.
            db.images.count_documents({"status": state}, hint="rare_states")
            for state in ("queued", "processing")
        )
        batches = db.batches.aggregate(
            [{"$match": {"open": True}}, {"$group": open_batches}, {"$project": age}],
            hint="open_batches",
        )
        found = next(iter(batches), {"bytes": 0, "age": 0})
    return Backlog(images, found["bytes"], max(0.0, found["age"] / 1000))


def failures_by_code(db: Db, stores: AllowedStores = None, *, deadline_s: float = 30.0) -> dict[str, int]:
    """Count the newest failed images, at most ``FAILURES_READ``, by error code, in descending order of the count.

    :param stores: the stores whose images are counted. Those of all stores are read.
    :raises TooSlow: when this takes longer than ``deadline_s``.
    :raises StoreAway: when MongoDB does not respond.
    """
    within = [] if stores is None else [{"$match": {"store_name": {"$in": sorted(stores)}}}]
    with translate_errors():
        groups = db.images.aggregate(
            [
                {"$match": {"status": "failed"}},
                {"$sort": {"batch_id": -1, "_id": -1}},
                {"$limit": FAILURES_READ},
                *within,
                {"$group": {"_id": "$error.code", "n": {"$sum": 1}}},
                {"$sort": {"n": -1}},
            ],
            hint="rare_states",
            maxTimeMS=int(deadline_s * 1000),
        )
        return {str(group["_id"]): group["n"] for group in groups}
