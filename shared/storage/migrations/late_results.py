"""Adds ``top_score`` to the images that workers of the version before have processed while they ran beside this version.

Migration 2 visits each image once. An image may have no result at that time, and then get one from such a worker, without
the field. So migration 2 records an id (``late_from``) before it begins: of all images without a result, and of all that are
accepted later, none has a smaller id. After the last worker of the version before has ended, ``add_scores`` visits the
images from that id on. It records a new ``late_from``, so that it can be repeated after a further update.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared.ids import smallest_batch_id
from shared.storage.migrations.lock import MigrationLock
from shared.storage.migrations.run import CHUNK, Progress, Report
from shared.storage.mongo import Db, translate_errors

VERSION: Final = 2
"""The migration whose record has ``late_from``."""
_COMMIT_TIME: Final = timedelta(hours=1)
"""A batch is committed at most this time after its id was made, also if the clocks of two hosts differ."""


def set_scores(db: Db, ids: dict[str, Any]) -> int:
    """Set ``top_score`` in the images with detections and without the field, and return their number.

    :param ids: the condition for their ids.
    """
    without = {"_id": ids, "detections.score": {"$gte": 0}, "top_score": {"$exists": False}}
    with translate_errors():
        return db.images.update_many(without, [{"$set": {"top_score": {"$max": "$detections.score"}}}]).modified_count


def find_first_late_id(db: Db) -> str:
    """Return an id that no image without a result, and none that will be accepted, is smaller than."""
    ids = [smallest_batch_id(datetime.now(UTC).replace(tzinfo=None) - _COMMIT_TIME)]
    with translate_errors():
        for status in ("queued", "processing"):
            oldest = db.images.find_one({"status": status}, {"_id": 1}, sort=[("batch_id", 1), ("_id", 1)], hint="rare_states")
            ids += [] if oldest is None else [oldest["_id"]]
    return min(ids)


def add_scores(db: Db, lock: MigrationLock, report: Report) -> int:
    """Set ``top_score`` in the images that have got a result without it, and return their number.

    If it is interrupted, the next call visits the same images again.

    :param lock: the lock of the migrations, which this process holds.
    :raises LockLost: when another process has taken over the lock.
    :raises StoreAway: when MongoDB does not respond.
    """
    lock.keep()
    next_from = find_first_late_id(db)
    with translate_errors():
        record = db.migrations.find_one({"_id": VERSION}, {"late_from": 1}) or {}
    begin: dict[str, Any] | None = {"$gte": record.get("late_from", "")}
    visited = changed = 0
    while begin is not None:
        with translate_errors():
            ids = [row["_id"] for row in db.images.find({"_id": begin}, {"_id": 1}).sort("_id", 1).limit(CHUNK)]
        if ids:
            changed += set_scores(db, begin | {"$lte": ids[-1]})
        visited += len(ids)
        lock.keep()
        report(Progress("images that were processed during the update", visited))
        begin = {"$gt": ids[-1]} if len(ids) == CHUNK else None
    with translate_errors():
        db.migrations.update_one({"_id": VERSION}, {"$set": {"late_from": next_from}})
    return changed
