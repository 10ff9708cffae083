"""Cancels a batch: its queued images are not processed any more.

First, one write marks the open batch (``cancelling``). Then its queued images end: each gets the state of its last result, or
``cancelled`` if it has none. Images that a worker holds are finished. If their worker loses them, they are queued again, and
the sweep ends them at its next tick (``end_queued``). So it also does the rest for a process that has died after the mark.
The mark is removed when the batch is closed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pymongo import UpdateMany

from shared import failpoints
from shared.allowed_stores import AllowedStores
from shared.errors import Conflict, StoreAway
from shared.ledger import closing, reprocessing, shown_results, timelines, whole_batches
from shared.states import ImageState
from shared.storage.mongo import Db, Document, deadline, majority

_TRIES: Final = 8
_PAUSE_S: Final = 0.03
_REPAIR_S: Final = 10.0
_ENDED: Final[Document] = shown_results.OPTIONS_BEFORE | {
    "status": shown_results.STATE_BEFORE,
    "finished_at": {"$ifNull": ["$finished_at", "$$NOW"]},
    "updated_at": "$$NOW",
}


class Mark(NamedTuple):
    """The mark of a batch that is being cancelled: its generation at that time, and who has requested it (``Principal.by``)."""

    generation: int
    by: str | None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The number of images that a request has ended, and of those that workers were processing at that moment."""

    cancelled: int
    running: int


def cancel(db: Db, batch_id: str, stores: AllowedStores, *, by: str | None = None, deadline_s: float = 10.0) -> Cancelled:
    """End the queued images of an open batch.

    :param stores: the stores in which the caller may change images. The batch must have images of no others.
    :param by: who makes the request (``Principal.by``).
    :raises NotFound: when the batch is unknown or deleted.
    :raises Forbidden: when an image belongs to another store (``foreign_store``).
    :raises Conflict: when all its images have ended (``batch_closed``), or an update of the service is not finished
        (``update_unfinished``).
    :raises StoreAway: when MongoDB does not respond. The batch may still be cancelled.
    """
    with deadline(deadline_s):
        reprocessing.check_update(db)
        generation = _mark(db, batch_id, stores, by)
        failpoints.reach("12-cancellation-marked")
        ended = end_queued(db, {batch_id: Mark(generation, by)})
        running = db.images.count_documents({"status": ImageState.PROCESSING.value, "batch_id": batch_id}, hint="rare_states")
        closing.close_batches(db, [batch_id])
    return Cancelled(ended, running)


def find_cancelling(db: Db, after: str, limit: int) -> dict[str, Mark]:
    """Return open batches that are being cancelled, in ascending order, with their marks (called by the sweep).

    :param after: the last id that the previous call returned; an empty text begins anew.
    :raises StoreAway: when MongoDB does not respond.
    """
    with deadline(_REPAIR_S):
        batches = majority(db, "batches")  # a failover must not undo a mark
        marked = batches.find({"cancelling": True, "_id": {"$gt": after}}, {"generation": 1, "cancelled_by": 1}, hint="cancelling")
        return {row["_id"]: Mark(row["generation"], row.get("cancelled_by")) for row in marked.sort("_id", 1).limit(limit)}


def end_queued(db: Db, marks: Mapping[str, Mark]) -> int:
    """End the queued images of batches that are being cancelled, and return their number.

    :param marks: the batches, with their marks. Images that have been queued again since then are left.
    :raises StoreAway: when MongoDB does not respond.
    """
    if not marks:
        return 0
    queued = {"status": ImageState.QUEUED.value}
    updates = [
        UpdateMany(
            queued | {"batch_id": batch_id, "work.generation": {"$lte": mark.generation}},
            [{"$set": _ENDED | timelines.append_request("cancel", mark.by)}],
            hint="rare_states",
        )
        for batch_id, mark in marks.items()
    ]
    with deadline(_REPAIR_S):
        ended = db.images.bulk_write(updates, ordered=False).modified_count
    failpoints.reach("12-cancellation-ended")
    return ended


def _mark(db: Db, batch_id: str, stores: AllowedStores, by: str | None) -> int:
    """Mark a batch, and return its generation."""
    whole = whole_batches.query(batch_id, stores)
    for attempt in range(_TRIES):
        time.sleep(attempt * _PAUSE_S)  # until a majority has the mark of another request
        marked = db.batches.find_one_and_update(
            whole | {"open": True, "reprocessing": None}, {"$set": {"cancelling": True, "cancelled_by": by}}, {"generation": 1}
        )
        if marked is not None:
            return int(marked["generation"])
        header = db.batches.find_one(whole, {"open": 1})
        if header is None:
            raise whole_batches.refusal(db, batch_id)
        if not header.get("open"):
            raise Conflict("All images of the batch have ended, so it cannot be cancelled.", code="batch_closed")
        reprocessing.complete(db, [batch_id])
    raise StoreAway("The batch is being changed by other requests; retry later.", retry_after=2)
