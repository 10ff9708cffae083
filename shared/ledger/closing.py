"""Closes a batch, with its final state and counts, after the last of its images has a result."""

from collections.abc import Iterable, Sequence

from shared.states import ImageState, batch_state
from shared.storage.mongo import Db, translate_errors


def close_batches(db: Db, batch_ids: Iterable[str]) -> list[str]:
    """Close each of the batches ``batch_ids`` if all its images are in a terminal state.

    Each worker calls this function after MongoDB has acknowledged its results, so the worker that finishes last sees
    all results. If a worker crashes between writing its results and this call, the sweep closes the batch.

    :returns: the ids of the batches that this call has closed.
    """
    closed = []
    with translate_errors():
        for batch_id in set(batch_ids):
            header = db.batches.find_one({"_id": batch_id, "open": True}, {"total": 1, "generation": 1})
            if header is None:
                continue
            counts = count_images(db, [batch_id]).get(batch_id, {})
            if counts.get(ImageState.QUEUED) or counts.get(ImageState.PROCESSING):
                continue
            final = {state.value: counts.get(state.value, 0) for state in ImageState}
            change = {"status": batch_state(counts, header["total"]).value, "counts": final}
            updated = db.batches.update_one(
                {"_id": batch_id, "open": True, "generation": header["generation"]},
                {"$set": change, "$unset": {"open": ""}, "$currentDate": {"finished_at": True}},
            )
            if updated.modified_count:
                closed.append(batch_id)
    return closed


def count_images(db: Db, batch_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of images in each batch by state: ``{batch id: {state: count}}``."""
    groups = db.images.aggregate(
        [
            {"$match": {"batch_id": {"$in": list(batch_ids)}}},
            {"$group": {"_id": {"b": "$batch_id", "s": "$status"}, "n": {"$sum": 1}}},
        ]
    )
    counts: dict[str, dict[str, int]] = {}
    for group in groups:
        counts.setdefault(group["_id"]["b"], {})[group["_id"]["s"]] = group["n"]
    return counts


def find_closable(db: Db, limit: int = 200) -> list[str]:
    """Return the ids of open batches without unfinished images (called by the sweep).

    A call checks at most ``limit`` open batches: those whose last check was the longest time ago. Repeated calls
    therefore check all open batches.

    :param limit: maximum number of batches to check.
    """
    with translate_errors():
        batch_ids = [
            row["_id"] for row in db.batches.find({"open": True}, {"_id": 1}).sort("checked_at", 1).limit(limit)
        ]
        if not batch_ids:
            return []
        db.batches.update_many({"_id": {"$in": batch_ids}}, {"$currentDate": {"checked_at": True}})
        unfinished = {"batch_id": {"$in": batch_ids}, "status": {"$in": ["queued", "processing"]}}
        return sorted(set(batch_ids) - set(db.images.distinct("batch_id", unfinished)))
