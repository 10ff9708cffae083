"""One run of one migration, and its record in the collection ``migrations``.

===================  ===============================================================================================
``_id``              the version of the migration
``name``             the name of its module
``state``            ``running`` (also after its process has died), ``done`` or ``failed``
``owner``            the owner of the lock under which it is run; a process that has lost the lock cannot change the record
``started_at``       the time of the first start, by the clock of MongoDB
``finished_at``      the time when it was done, by the clock of MongoDB; null before
``error``            the class of the error with which the last run failed; null otherwise
``progress``         for each collection: ``after``, the last id that is done; ``until``, the last id that is to be done;
                     ``done`` and ``total``, numbers of documents, of which ``total`` is an estimate
``late_from``        only of migration 2: see ``late_results``
``update_finished``  only of migration 3: see ``update_end``
``returned``         only of migration 3: see ``update_end``
===================  ===============================================================================================
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared import failpoints
from shared.storage.migrations.errors import LockLost
from shared.storage.migrations.lock import MigrationLock
from shared.storage.mongo import Db, Document, translate_errors

CHUNK: Final = 1000
"""Documents in a range of ids. A range is small, so that it does not delay other writes."""
_LOST: Final = "Another process has taken over the lock of the migrations; run the command again."


class Progress(NamedTuple):
    """The progress of a step, for people: what is done, and how many of how many documents (0 of 0 if unknown)."""

    step: str
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


class Run:
    """A run of a migration by the process that holds the lock. ``db`` is the database to change."""

    def __init__(self, db: Db, lock: MigrationLock, version: int, name: str, report: Report) -> None:
        self.db = db
        self._lock, self._version, self._name, self._report = lock, version, name, report
        self._progress: dict[str, Document] = {}

    def start(self) -> None:
        """Record that the migration runs, and read how far an earlier run came.

        :raises LockLost: when the migration is done, because another process has taken over the lock and run it.
        """
        begin = {
            "name": self._name,
            "state": "running",
            "owner": self._lock.owner,
            "started_at": {"$ifNull": ["$started_at", "$$NOW"]},
            "finished_at": None,
            "error": None,
            "progress": {"$ifNull": ["$progress", {}]},
        }
        unfinished = {"_id": self._version, "state": {"$ne": "done"}}
        with translate_errors():
            try:
                record = self.db.migrations.find_one_and_update(unfinished, [{"$set": begin}], upsert=True, return_document=ReturnDocument.AFTER)
            except DuplicateKeyError as error:
                raise LockLost(_LOST) from error
        assert record is not None  # noqa: S101 -- an upsert returns the document
        self._progress = record["progress"]

    def finish(self) -> None:
        """Record that the migration is done.

        :raises LockLost: when another process has taken over the lock.
        """
        self._update([{"$set": {"state": "done", "finished_at": "$$NOW"}}])

    def fail(self, error: Exception) -> None:
        """Record that the migration failed."""
        self._update([{"$set": {"state": "failed", "error": type(error).__name__}}])

    def store_once(self, name: str, find: Callable[[Db], str]) -> None:
        """Store a text in a field of the record, unless an earlier run of the migration has done so.

        :param find: returns the text.
        :raises LockLost: when another process has taken over the lock.
        """
        text = find(self.db)
        self._update([{"$set": {name: {"$ifNull": [f"${name}", {"$literal": text}]}}}])

    def store(self, name: str, *, value: bool) -> None:
        """Set a field of the record.

        :raises LockLost: when another process has taken over the lock.
        """
        self._update({"$set": {name: value}})

    def id_ranges(self, collection: str) -> Iterator[Document]:
        """Yield a condition on ``_id`` for each of the ranges that together contain all documents of a collection.

        When the caller continues the iteration, the previous range counts as done and is not yielded by later runs.
        Documents that are inserted after the first run of the migration began are in no range. Ids must be strings.

        :raises LockLost: when another process has taken over the lock.
        """
        state = self._progress.get(collection) or self._plan(collection)
        while state["until"] is not None and (state["after"] is None or state["after"] < state["until"]):
            after = {} if state["after"] is None else {"$gt": state["after"]}
            with translate_errors():
                query = {"_id": after | {"$lte": state["until"]}}
                ids = [row["_id"] for row in self.db[collection].find(query, {"_id": 1}).sort("_id", 1).limit(CHUNK)]
            last = ids[-1] if len(ids) == CHUNK else state["until"]
            yield after | {"$lte": last}
            failpoints.reach("migration.range")
            state |= {"after": last, "done": state["done"] + len(ids)}
            self._store(collection, state)
            self._report(Progress(f"{self._name}: {collection}", state["done"], state["total"]))

    def _plan(self, collection: str) -> Document:
        with translate_errors():
            newest = self.db[collection].find_one({}, {"_id": 1}, sort=[("_id", -1)])
            total = self.db[collection].estimated_document_count()
        state = {"after": None, "until": newest and newest["_id"], "done": 0, "total": total}
        self._store(collection, state)
        return state

    def _store(self, collection: str, state: Document) -> None:
        self._progress[collection] = state
        self._update({"$set": {f"progress.{collection}": state}})

    def _update(self, change: Any) -> None:
        self._lock.keep()
        with translate_errors():
            updated = self.db.migrations.update_one({"_id": self._version, "owner": self._lock.owner}, change)
        if not updated.matched_count:
            raise LockLost(_LOST)
