"""The way to MongoDB: one client per process, made after the fork, with every wait bounded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from shared import settings
from shared.errors import StoreAway, TooSlow

Document = dict[str, Any]
Db = Database[Document]

WRITE_TIMEOUT_MS = 5000


def connect(mongo: settings.Mongo, *, app: str) -> Db:
    """Open the database: writes are acknowledged by a majority and journalled, reads go to the primary.

    :param app: name of the process, for the server's own log. No I/O happens before the first call.
    """
    client: MongoClient[Document] = MongoClient(
        mongo.url,
        appname=f"shelfsight-{app}",
        connectTimeoutMS=int(mongo.connect_timeout_s * 1000),
        serverSelectionTimeoutMS=int(mongo.server_selection_timeout_s * 1000),
        socketTimeoutMS=int(mongo.socket_timeout_s * 1000),
        waitQueueTimeoutMS=int(mongo.server_selection_timeout_s * 1000),
        maxPoolSize=64,
        retryWrites=True,
        retryReads=True,
    )
    return client.get_database(
        mongo.database,
        write_concern=WriteConcern(w="majority", j=True, wtimeout=WRITE_TIMEOUT_MS),
        read_concern=ReadConcern("local"),
        read_preference=ReadPreference.PRIMARY,
    )


def proven(db: Db) -> Db:
    """Give the database to read one document by its id, as a majority holds it while it is read. A read waits for that: bound it.

    Any other read shows what this one server has. A primary that is cut off from the others does not know it yet, and what it shows
    may be rolled back. A majority's latest snapshot (read concern "majority") would be old there, and say so of nothing.
    """
    return db.with_options(read_concern=ReadConcern("linearizable"))


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours; the cause stays attached for the log and is never shown to a client."""
    try:
        yield
    except ExecutionTimeout as error:
        raise TooSlow("This listing takes too long; use cursor=newest or a narrower filter.") from error
    except PyMongoError as error:
        raise StoreAway("The database does not answer; try again.", retry_after=2) from error
