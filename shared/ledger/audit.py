"""Checks that every accepted image is accounted for, and measures the backlog."""

from dataclasses import dataclass
from typing import Final

from shared.ledger import sums
from shared.storage.mongo import Db, deadline, translate_errors

_BACKLOG_DEADLINE_S: Final = 30.0
_FAILURES_READ: Final = 10_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """The images that wait for a worker or are being processed.

    ``bytes`` is the size of all originals in all open batches, including the originals of finished images.
    ``oldest_age_s`` is the age of the oldest open batch in seconds.
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
    open_batches = {"_id": None, "bytes": {"$sum": "$bytes"}, "oldest": {"$min": "$created_at"}}
    age = {"bytes": 1, "age": {"$subtract": ["$$NOW", "$oldest"]}}
    with deadline(_BACKLOG_DEADLINE_S):
        images = sum(
            # With both states in one query, MongoDB would read each document, too.
            db.images.count_documents({"status": state}, hint="rare_states")
            for state in ("queued", "processing")
        )
        batches = db.batches.aggregate(
            [{"$match": {"open": True}}, {"$group": open_batches}, {"$project": age}],
            hint="backlog",
        )
        found = next(iter(batches), {"bytes": 0, "age": 0})
    return Backlog(images, found["bytes"], max(0.0, found["age"] / 1000))


def failures_by_code(db: Db) -> dict[str, int]:
    """Count the newest failed images, at most ``_FAILURES_READ``, by error code, in descending order of the count."""
    with translate_errors():
        groups = db.images.aggregate(
            [
                {"$match": {"status": "failed"}},
                {"$sort": {"batch_id": -1, "_id": -1}},
                {"$limit": _FAILURES_READ},
                {"$group": {"_id": "$error.code", "n": {"$sum": 1}}},
                {"$sort": {"n": -1}},
            ],
            hint="rare_states",
        )
        return {str(group["_id"]): group["n"] for group in groups}
