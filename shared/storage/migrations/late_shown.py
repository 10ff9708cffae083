"""Corrects ``shown`` of the images that workers of the version before have processed again after a return to it.

The version before does not know ``shown``: its workers do not write it, and its sweep deletes the files of all attempts but the
last one. If it was installed while images waited to be processed again, it has processed them. Then ``shown`` names an older attempt
than the one whose result the image has.

An image is one of these if ``shown`` does not name its last attempt, and the image does not record this attempt, as this version does
(``history.attempts``), and its last request was not to cancel it.
"""

from typing import Any, Final

from pymongo import UpdateMany

from shared.storage.migrations.lock import MigrationLock
from shared.storage.migrations.run import CHUNK, Progress, Report
from shared.storage.mongo import Db, Document, translate_errors

_BATCHES: Final = 20
"""Batches whose images one command changes. A command reads up to 1,000 images of each."""
_LAST_ATTEMPT: Final = {"$last": "$history.attempts.fence"}
_LAST_REQUEST: Final = {"$last": "$history.requests.kind"}
_BY_OLD_WORKER: Final[Document] = {
    "shown.fence": {"$gt": 0},
    "$expr": {
        "$and": [
            {"$lt": ["$shown.fence", "$work.fence"]},
            {"$ne": [_LAST_ATTEMPT, "$work.fence"]},
            {"$ne": [_LAST_REQUEST, "cancel"]},
        ]
    },
}
_SHOW_LAST: Final[Document] = {
    "shown": {"$mergeObjects": [{"fence": "$work.fence"}]},  # an expression, so that no member of the old value is kept
    "top_score": {"$ifNull": [{"$max": "$detections.score"}, "$$REMOVE"]},
}


def correct(db: Db, lock: MigrationLock, report: Report) -> int:
    """Let ``shown`` of the images name the attempt whose result they have, and return how many images were changed.

    An image that the version before could not process has no result any more that can be shown, so ``shown`` is removed. Only
    batches of which images were processed again are visited. If the call is interrupted, the next one visits them once more.

    :param lock: the lock of the migrations, which this process holds.
    :raises LockLost: when another process has taken over the lock.
    :raises StoreAway: when MongoDB does not respond.
    """
    after: dict[str, Any] | None = {}
    visited = changed = 0
    while after is not None:
        lock.keep()
        with translate_errors():
            rows = list(db.batches.find(after, {"generation": 1}).sort("_id", 1).limit(CHUNK))
        reprocessed = [row["_id"] for row in rows if row["generation"]]
        for begin in range(0, len(reprocessed), _BATCHES):
            lock.keep()
            changed += _correct_batches(db, reprocessed[begin : begin + _BATCHES])
        visited += len(rows)
        report(Progress("images that were processed again by the version before: batches", visited))
        after = {"_id": {"$gt": rows[-1]["_id"]}} if len(rows) == CHUNK else None
    return changed


def _correct_batches(db: Db, batch_ids: list[str]) -> int:
    updates = []
    for batch_id in batch_ids:
        done = {"batch_id": batch_id, "status": "done"} | _BY_OLD_WORKER
        failed = {"batch_id": batch_id, "status": "failed"} | _BY_OLD_WORKER
        updates.append(UpdateMany(done, [{"$set": _SHOW_LAST}], hint=[("batch_id", 1), ("index", 1)]))
        updates.append(UpdateMany(failed, {"$unset": {"shown": ""}}, hint=[("batch_id", 1), ("index", 1)]))
    with translate_errors():
        return db.images.bulk_write(updates, ordered=False).modified_count
