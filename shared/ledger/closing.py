"""Closes a batch, with its final state and counts, after the last of its images has a result."""

from collections.abc import Iterable, Sequence
from typing import Final

from pymongo import UpdateOne

from shared.states import ImageState, batch_state
from shared.storage.mongo import Db, Document, translate_errors

_UNFINISHED: Final = frozenset({ImageState.QUEUED.value, ImageState.PROCESSING.value})


def close_batches(db: Db, batch_ids: Iterable[str]) -> list[str]:
    """Close each of the batches ``batch_ids`` if all its images are in a terminal state.

    Each worker calls this function after MongoDB has acknowledged its results, so the worker that finishes last sees
    all results. If a worker crashes between writing its results and this call, the sweep closes the batch.

    The number of round trips does not depend on the number of batches. The images of a batch are counted only when none
    of them is unfinished, so a batch that is processed in many claims is usually counted once. A batch whose images are about
    to be queued again (``shared.ledger.reprocessing``) is not closed.

    :returns: the ids of the batches that this call has closed, in ascending order. If another call has closed one of
        them at the same time, both calls can return it.
    """
    with translate_errors():
        of_batches = {"_id": {"$in": sorted(set(batch_ids))}, "open": True, "reprocessing": None}
        headers = {row["_id"]: row for row in db.batches.find(of_batches, {"total": 1, "generation": 1})}
        if not headers:
            return []
        finished = sorted(headers.keys() - _find_unfinished(db, list(headers)))
        if not finished:
            return []
        counts = _count_images(db, finished)
        # An image may have been requeued in the meantime.
        closing = [batch_id for batch_id in finished if not _UNFINISHED & counts.get(batch_id, {}).keys()]
        if not closing:
            return []
        updates = [_close(headers[batch_id], counts.get(batch_id, {})) for batch_id in closing]
        if db.batches.bulk_write(updates, ordered=False).modified_count < len(closing):
            closed = db.batches.find({"_id": {"$in": closing}, "open": {"$ne": True}, "listed": True}, {"_id": 1})
            return sorted(row["_id"] for row in closed)
        return closing


def _close(header: Document, counts: dict[str, int]) -> UpdateOne:
    final = {state.value: counts.get(state.value, 0) for state in ImageState}
    change = {"status": batch_state(counts, header["total"]).value, "counts": final}
    return UpdateOne(
        # A reprocessing that has begun in the meantime has increased the generation. A smaller total means that an image has been deleted since, which may have been counted. Whoever deletes an image
        # closes its batch afterwards.
        {"_id": header["_id"], "open": True, "generation": header["generation"], "total": header["total"]},
        {"$set": change, "$unset": {"open": "", "cancelling": "", "cancelled_by": ""}, "$currentDate": {"finished_at": True}},
    )


def _find_unfinished(db: Db, batch_ids: Sequence[str]) -> set[str]:
    """Return those of ``batch_ids`` that have a queued or processing image.

    For each batch, MongoDB reads one index entry per state, no matter how many images the batch has. It does so only if
    each query names a single state.
    """
    found: set[str] = set()
    for state in _UNFINISHED:
        images = {"status": state, "batch_id": {"$in": list(batch_ids)}}
        groups = db.images.aggregate([{"$match": images}, {"$group": {"_id": "$batch_id"}}], hint="rare_states")
        found |= {group["_id"] for group in groups}
    return found


def _count_images(db: Db, batch_ids: Sequence[str]) -> dict[str, dict[str, int]]:
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
        return sorted(set(batch_ids) - _find_unfinished(db, batch_ids))
