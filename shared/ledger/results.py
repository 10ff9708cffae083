"""Stores a result once, from the worker that still holds the image, and closes a batch after its last result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne

from shared.ledger import claims
from shared.queue.leases import Lease
from shared.states import ImageState, batch_state
from shared.storage.mongo import Db, Document, translate_errors


@dataclass(frozen=True, slots=True)
class Result:
    """Result of an image under the claim with this fence: fields to store, or an error as a stable code and a sentence."""

    image_id: str
    fence: int
    fields: dict[str, Any] | None = None
    error: tuple[str, str] | None = None


def finish(db: Db, owner: str, results: Sequence[Result]) -> set[str]:
    """Store results; state and result of an image change in one atomic write, and only under the fence of the claim.

    :returns: ids of the images whose result is stored. The claims of the others were lost: write nothing more for them.
    """
    if not results:
        return set()
    with translate_errors():
        stored = db.images.bulk_write([_update(owner, result) for result in results], ordered=False)
        if stored.matched_count == len(results):
            return {result.image_id for result in results}
        fences = {result.image_id: result.fence for result in results}
        terminal = {"_id": {"$in": list(fences)}, "status": {"$in": ["done", "failed"]}, "work.finisher": owner}
        found = db.images.find(terminal, {"work.fence": 1})
        return {image["_id"] for image in found if image["work"]["fence"] == fences[image["_id"]]}


def close_batches(db: Db, batch_ids: Iterable[str]) -> list[str]:
    """Close those of these batches whose images are all terminal.

    Every worker counts after its own acknowledged write, so the last one sees all results; after a crash in between the sweep closes
    the batch.

    :returns: the batches closed by this call.
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
    """Count the images of batches by state: ``{batch id: {state: count}}``."""
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
    """Return ids of open batches without an unfinished image, among those checked longest ago (sweep)."""
    with translate_errors():
        batch_ids = [
            row["_id"] for row in db.batches.find({"open": True}, {"_id": 1}).sort("checked_at", 1).limit(limit)
        ]
        if not batch_ids:
            return []
        db.batches.update_many({"_id": {"$in": batch_ids}}, {"$currentDate": {"checked_at": True}})
        unfinished = {"batch_id": {"$in": batch_ids}, "status": {"$in": ["queued", "processing"]}}
        return sorted(set(batch_ids) - set(db.images.distinct("batch_id", unfinished)))


def _update(owner: str, result: Result) -> "UpdateOne":
    fields: Document = dict(result.fields or {})
    if result.error is None:
        fields |= {"status": ImageState.DONE.value, "error": None}
    else:
        code, detail = result.error
        fields |= {"status": ImageState.FAILED.value, "error": {"code": code, "detail": detail}}
    fields |= {"work.owner": None, "work.finisher": owner, "work.claim": None, "work.lease_until": None}
    return UpdateOne(
        claims.LEASES.guard(owner, Lease(result.image_id, result.fence)),
        {"$set": fields, "$currentDate": {"finished_at": True, "updated_at": True}},
    )
