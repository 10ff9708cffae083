"""Checks that every accepted image is accounted for, and measures the backlog."""

from dataclasses import dataclass
from typing import Final

from shared.ledger import sums
from shared.storage.mongo import Db, deadline, translate_errors

_BACKLOG_DEADLINE_S: Final = 30.0


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
