"""A result is stored once, by whoever still holds the image; the last one closes the batch."""

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
    """What became of an image under the claim with this fence: the fields found, or a stable code and a sentence."""

    image_id: str
    fence: int
    fields: dict[str, Any] | None = None
    error: tuple[str, str] | None = None


def finish(db: Db, owner: str, results: Sequence[Result]) -> set[str]:
    """Store results; state and result change in one atomic write each, and only under the claim's fence.

    :returns: ids of the images whose result now stands. The others' claims were lost: write nothing more for them.
    """
    if not results:
        return set()
    with translate_errors():
        stored = db.images.bulk_write([_write(owner, result) for result in results], ordered=False)
        if stored.matched_count == len(results):
            return {result.image_id for result in results}
        fences = {result.image_id: result.fence for result in results}
        terminal = {"_id": {"$in": list(fences)}, "status": {"$in": ["done", "failed"]}, "work.finisher": owner}
        found = db.images.find(terminal, {"work.fence": 1})
        return {image["_id"] for image in found if image["work"]["fence"] == fences[image["_id"]]}


def close_batches(db: Db, batch_ids: Iterable[str]) -> list[str]:
    """Close those batches whose images are all terminal.

    Every finisher counts after its own acknowledged write, so the last one sees all; a crash in between is the sweep's.

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
            done = db.batches.update_one(
                {"_id": batch_id, "open": True, "generation": header["generation"]},
                {"$set": change, "$unset": {"open": ""}, "$currentDate": {"finished_at": True}},
            )
            if done.modified_count:
                closed.append(batch_id)
    return closed


def count_images(db: Db, batch_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the images of batches by state: ``{batch id: {state: n}}``."""
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


def find_unclosed(db: Db, limit: int = 200) -> list[str]:
    """Find open batches without an unfinished image, the ones looked at longest ago first (sweep)."""
    with translate_errors():
        looked = [row["_id"] for row in db.batches.find({"open": True}, {"_id": 1}).sort("checked_at", 1).limit(limit)]
        if not looked:
            return []
        db.batches.update_many({"_id": {"$in": looked}}, {"$currentDate": {"checked_at": True}})
        unfinished = {"batch_id": {"$in": looked}, "status": {"$in": ["queued", "processing"]}}
        return sorted(set(looked) - set(db.images.distinct("batch_id", unfinished)))


def _write(owner: str, result: Result) -> "UpdateOne":
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
