"""Checks that every accepted image is accounted for, and measures the backlog."""

from dataclasses import dataclass

from pymongo.client_session import ClientSession

from shared.storage.mongo import Db, translate_errors


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
    """Count all images that were ever accepted, by their outcome.

    ``received`` and ``deleted`` are read from the documents of the ledger, which are written when a batch is committed
    and when it is deleted. All other numbers count image documents. If image documents were removed by hand,
    ``received`` is therefore greater than the sum of the other numbers. All numbers are read from one snapshot, because
    otherwise images that change their state between two reads could look like lost images.

    :returns: ``received``, ``done``, ``failed``, ``cancelled``, ``pending`` and ``deleted``.
    """
    with translate_errors(), db.client.start_session(snapshot=True) as session:
        groups = db.ledger.aggregate(
            [{"$group": {"_id": None, "received": {"$sum": "$received"}, "deleted": {"$sum": "$deleted"}}}],
            session=session,
        )
        sums = next(iter(groups), {"received": 0, "deleted": 0})
        counts = {
            state: _count(db, state, session) for state in ("queued", "processing", "failed", "cancelled", "deleting")
        }
        by_batch = [("batch_id", 1), ("index", 1)]
        image_count = db.images.count_documents({"batch_id": {"$gte": ""}}, hint=by_batch, session=session)
    return {
        "received": sums["received"],
        "done": image_count - sum(counts.values()),
        "failed": counts["failed"],
        "cancelled": counts["cancelled"],
        "pending": counts["queued"] + counts["processing"],
        "deleted": sums["deleted"],
    }


def backlog(db: Db) -> Backlog:
    """Measure the backlog. The cost depends on the number of open batches, not on the number of all batches."""
    with translate_errors():
        images = _count(db, "queued") + _count(db, "processing")
        groups = db.batches.aggregate(
            [
                {"$match": {"open": True}},
                {
                    "$group": {
                        "_id": None,
                        "bytes": {"$sum": "$bytes"},
                        "age": {"$max": {"$subtract": ["$$NOW", "$created_at"]}},
                    }
                },
            ]
        )
        open_batches = next(iter(groups), {"bytes": 0, "age": 0})
    return Backlog(images, open_batches["bytes"], max(0.0, open_batches["age"] / 1000))


def failures_by_code(db: Db) -> dict[str, int]:
    """Count the failed images by error code. The result is in descending order of the count."""
    with translate_errors():
        groups = db.images.aggregate(
            [
                {"$match": {"status": "failed"}},
                {"$group": {"_id": "$error.code", "n": {"$sum": 1}}},
                {"$sort": {"n": -1}},
            ]
        )
        return {str(group["_id"]): group["n"] for group in groups}


def _count(db: Db, status: str, session: ClientSession | None = None) -> int:
    return db.images.count_documents({"status": status}, hint="unfinished_or_bad", session=session)
