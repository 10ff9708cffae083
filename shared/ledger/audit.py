"""The ledger balances, or shows that it does not."""

from dataclasses import dataclass

from pymongo.client_session import ClientSession

from shared.storage.mongo import Db, translate_errors


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits or is being worked on: images, bytes of their originals (whole open batches), age of the oldest in seconds."""

    images: int
    bytes: int
    oldest_age_s: float


def balance(db: Db) -> dict[str, int]:
    """Count every image that was ever accepted by what became of it.

    ``received`` and ``deleted`` come from the ledger's own lines, written by the commit and the deletion; the others are
    counted over the documents. So ``received`` exceeds the sum of the others by the number of documents that somebody
    removed by hand. All is read from one snapshot: counted one after the other, work going on would look like a loss.
    """
    with translate_errors(), db.client.start_session(snapshot=True) as session:
        lines = db.ledger.aggregate(
            [{"$group": {"_id": None, "received": {"$sum": "$received"}, "deleted": {"$sum": "$deleted"}}}],
            session=session,
        )
        sums = next(iter(lines), {"received": 0, "deleted": 0})
        counts = {
            state: _count(db, state, session) for state in ("queued", "processing", "failed", "cancelled", "deleting")
        }
        by_batch = [("batch_id", 1), ("index", 1)]
        everything = db.images.count_documents({"batch_id": {"$gte": ""}}, hint=by_batch, session=session)
    return {
        "received": sums["received"],
        "done": everything - sum(counts.values()),
        "failed": counts["failed"],
        "cancelled": counts["cancelled"],
        "pending": counts["queued"] + counts["processing"],
        "deleted": sums["deleted"],
    }


def backlog(db: Db) -> Backlog:
    """Measure what waits. Cost grows with the open batches, not with all."""
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
        waiting = next(iter(groups), {"bytes": 0, "age": 0})
    return Backlog(images, waiting["bytes"], max(0.0, waiting["age"] / 1000))


def failures_by_code(db: Db) -> dict[str, int]:
    """Count the failed images by the code of their error."""
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
