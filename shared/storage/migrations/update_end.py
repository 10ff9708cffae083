"""Whether an update is finished, that is, whether no process of the version before can be running any more.

Some of what this version does is safe only then, such as processing images again: the version before would delete files
that are still shown. No process knows which others are running. But the version before needs indexes that this version does
not (``schema.superseded``), and creates them when it is installed, or when somebody returns to it. So while the database has
one of them, such processes may be running, until an operator or a script that knows better finishes the update.

The record of migration 3 has the field ``update_finished``. ``runner.migrate`` sets it to False when it finds such an index, and
``runner.finish_update`` drops them and sets it to True. After a return to the version before, it is still True until ``migrate``
runs, so the indexes of the images are looked at, too. The field ``returned`` of the record says that there may have been a return
since the update was last finished, so the version before may have processed images again (``late_shown``).
"""

from typing import Final

from pymongo.errors import OperationFailure

from shared import failpoints
from shared.storage.indexes import find_superseded_indexes, has_superseded_index
from shared.storage.migrations.lock import MigrationLock
from shared.storage.migrations.run import Progress, Report
from shared.storage.mongo import Db, translate_errors
from shared.storage.schema.superseded import SUPERSEDED_COLLECTIONS

VERSION: Final = 3
"""The migration whose record has ``update_finished``."""
_INDEX_NOT_FOUND: Final = 27
_NAMESPACE_NOT_FOUND: Final = 26


def is_update_finished(db: Db) -> bool:
    """Return whether no process of the version before can be running; False also if the migrations have not been run.

    The call reads one document and the names of the indexes of the images.

    :raises StoreAway: when MongoDB does not respond.
    """
    return is_recorded(db) and not has_superseded_index(db, "images")


def is_recorded(db: Db) -> bool:
    """Return whether it is recorded that the update is finished. There may have been a return to the version before since then.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        record = db.migrations.find_one({"_id": VERSION}, {"update_finished": 1})
    return record is not None and record.get("update_finished") is True


def record_begin(db: Db) -> None:
    """Record that processes of the version before can be running, and that this may be a return to it if an update was finished.

    The caller holds the lock of the migrations.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        db.migrations.update_one({"_id": VERSION, "update_finished": True}, {"$set": {"update_finished": False, "returned": True}})


def has_returned(db: Db) -> bool:
    """Return whether there may have been a return to the version before since the update was last finished.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return db.migrations.find_one({"_id": VERSION, "returned": True}, {"_id": 1}) is not None


def record_end(db: Db) -> None:
    """Record that the update is finished. The caller holds the lock of the migrations.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        db.migrations.update_one({"_id": VERSION}, {"$set": {"update_finished": True}, "$unset": {"returned": ""}})


def drop_superseded(db: Db, lock: MigrationLock, report: Report) -> list[str]:
    """Drop the indexes and collections that only older versions use, and return their names.

    If it is interrupted, the next call drops the rest.

    :param lock: the lock of the migrations, which this process holds.
    :raises LockLost: when another process has taken over the lock.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        collections = sorted(SUPERSEDED_COLLECTIONS & set(db.list_collection_names()))
    indexes = sorted(find_superseded_indexes(db))
    for number, name in enumerate(indexes):
        lock.keep()
        report(Progress("dropping the indexes of older versions", number, len(indexes)))
        collection, _, index = name.partition(".")
        _drop_index(db, collection, index)
        failpoints.reach("migration.index-dropped")
    for name in collections:
        lock.keep()
        with translate_errors():
            db.drop_collection(name)
    return indexes + collections


def _drop_index(db: Db, collection: str, index: str) -> None:
    with translate_errors():
        try:
            db[collection].drop_index(index)
        except OperationFailure as error:  # a call whose response was lost may have dropped it
            if error.code not in {_INDEX_NOT_FOUND, _NAMESPACE_NOT_FOUND}:
                raise
