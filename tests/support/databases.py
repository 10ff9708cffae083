"""Databases that the tests of one process use in turn.

Emptying a database takes a few milliseconds. Creating one with all collections and indexes takes half a second.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pymongo.errors import InvalidOperation

from shared import settings
from shared.ids import new_batch_id
from shared.storage.migrations import runner
from shared.storage.mongo import Db, connect
from shared.storage.schema import DOCUMENTS

_RESTING: Final = 4
_COLLECTIONS: Final[list[str]] = [document._meta["collection"] for document in DOCUMENTS]


class Databases:
    """Lends databases with all indexes, after all migrations, and without other documents.

    After a test, its database rests while the next ``_RESTING`` tests use others. So a thread that writes after the end of
    its test affects no other test. Collections that are not declared are dropped after the test. A database is dropped if
    a test has changed the declared collections or their indexes.
    """

    def __init__(self, url: str, timeouts: dict[str, Any]) -> None:
        self._url, self._timeouts = url, timeouts
        self._client = connect(self.new_settings(), app="test").client
        self._shared: Db | None = None
        self._resting: deque[settings.Mongo] = deque()
        self._definitions: dict[str, Any] = {}
        self._records: list[dict[str, Any]] = []

    def new_settings(self) -> settings.Mongo:
        """Return the settings of a database that does not exist yet."""
        return settings.Mongo(url=self._url, database=f"test_{new_batch_id()}", **self._timeouts)

    def lend(self) -> settings.Mongo:
        """Return the settings of a database that only the caller uses until it gives the database back."""
        if len(self._resting) <= _RESTING:
            return self._create()
        mongo = self._resting.popleft()
        self._empty(self._client[mongo.database])
        return mongo

    def give_back(self, mongo: settings.Mongo) -> None:
        """Lend this database again later, or drop it if it no longer has the collections and indexes of a new one."""
        db = self._client[mongo.database]
        found = _read_definitions(db)
        for undeclared in found.keys() - self._definitions.keys():
            db.drop_collection(undeclared)
            del found[undeclared]
        if found == self._definitions:
            self._resting.append(mongo)
        else:
            self._client.drop_database(db)

    def connect(self, mongo: settings.Mongo) -> Db:
        """Return a lent database. All tests share the connections, because opening them takes 10 ms of CPU time.

        A test that closes the client of its database gets no other one, but the next test does.
        """
        if self._shared is None or _is_closed(self._shared):
            self._shared = connect(mongo, app="test")
        return self._shared.client.get_database(
            mongo.database,
            codec_options=self._shared.codec_options,
            read_preference=self._shared.read_preference,
            write_concern=self._shared.write_concern,
            read_concern=self._shared.read_concern,
        )

    @contextmanager
    def connected(self) -> Iterator[Db]:
        """Lend a database for the tests of a whole file, which do not change it after it has been filled."""
        mongo = self.lend()
        yield self.connect(mongo)
        self.give_back(mongo)

    def close(self) -> None:
        """Close the connections. The databases remain until their server is removed."""
        self._client.close()
        if self._shared is not None:
            self._shared.client.close()

    def _create(self) -> settings.Mongo:
        mongo = self.new_settings()
        db = self._client[mongo.database]
        runner.migrate(db)
        db.drop_collection("leases")  # which is otherwise kept, with the leases of other tests
        self._records = self._records or list(db.migrations.find())
        self._definitions = self._definitions or _read_definitions(db)
        return mongo

    def _empty(self, db: Db) -> None:
        for collection in (*_COLLECTIONS, db.migrations.name):
            db[collection].delete_many({})
            db.command("planCacheClear", collection)  # plans that were chosen for the documents of another test
        db.migrations.insert_many(self._records)


def _is_closed(db: Db) -> bool:
    try:
        db.command("ping")
    except InvalidOperation:
        return True
    return False


def _read_definitions(db: Db) -> dict[str, Any]:
    """Return the options and the indexes of every collection."""
    return {
        found["name"]: (found["type"], found["options"], db[found["name"]].index_information())
        for found in db.list_collections()
    }
