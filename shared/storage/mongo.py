"""Connections to MongoDB. Each process opens its own client after it has been forked. Every wait has a time limit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pymongo
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from shared import settings
from shared.errors import StoreAway, TooSlow
from shared.storage import mongo_errors

Document = dict[str, Any]
Db = Database[Document]
T = TypeVar("T")

WRITE_TIMEOUT_MS = 5000
_ROLLBACK_S = 1.0


def connect(mongo: settings.Mongo, *, app: str) -> Db:
    """Return the database. By default, writes are journalled by a majority of servers, and reads go to the primary.

    The first operation opens the connection.

    :param app: name of the process, as shown in MongoDB's log.
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


def linearizable(db: Db) -> Db:
    """Return the database with read concern "linearizable", for reads of single documents by id.

    Such a read waits for a majority of the replica set, so the caller must set a time limit. Other read concerns show
    only the state of one server. This server may be a primary that has lost its majority without having noticed it. The
    data that this primary returns may be rolled back later; with read concern "majority", it cannot be rolled back, but
    it may be outdated without any sign.
    """
    return db.with_options(read_concern=ReadConcern("linearizable"))


def majority(db: Db, name: str) -> Collection[Document]:
    """Return a collection for reads that no failover undoes: they show what a majority of the replica set has."""
    return db.get_collection(name, read_concern=ReadConcern("majority"))


@contextmanager
def translate_errors() -> Iterator[None]:
    """Convert the driver's errors to domain errors; ``shared.storage.mongo_errors`` describes which.

    The original error remains attached as the cause. It appears in the log and is never shown to a client.
    """
    try:
        yield
    except PyMongoError as error:
        raise mongo_errors.translate(error) from error


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit the time of all operations of the body together, and convert errors like ``translate_errors``.

    :raises StoreAway: also when the time is over. The driver then raises the same error as for a query that is too slow,
        but the caller's advice to a client is a different one.
    """
    try:
        with translate_errors(), pymongo.timeout(seconds):
            yield
    except TooSlow as error:
        raise StoreAway("The database does not respond; retry later.", retry_after=2) from error


@contextmanager
def session_with_rollback(db: Db) -> Iterator[ClientSession]:
    """Start a session. If a transaction is still open at its end, it is rolled back, with a second of its own for this.

    Enter this context before one that limits the time. When the time is over, the driver does not send a rollback, and
    MongoDB keeps the documents of the transaction locked until its own limit for transactions.
    """
    session = db.client.start_session()
    try:
        yield session
    finally:
        with pymongo.timeout(_ROLLBACK_S):
            session.end_session()


def run_transaction(db: Db, write: Callable[[ClientSession], T], seconds: float) -> T:
    """Call ``write`` in a transaction, and return its result when the commit meets the write concern of the database.

    :param write: is called again after a conflict with another transaction. It must pass the session to each operation, and let
        the driver's errors pass, because they say whether the transaction is to be repeated.
    :param seconds: time limit of all attempts together, including the commit.
    :raises StoreAway: when MongoDB does not respond, or the time is over. The transaction may still have been committed.
    """
    with session_with_rollback(db) as session, deadline(seconds):
        return _with_transaction(db, session, write)


def run_raw_transaction(db: Db, write: Callable[[ClientSession], T], seconds: float) -> T:
    """Do the same as ``run_transaction``, but let the driver's errors pass, for a caller that handles or converts them itself."""
    with session_with_rollback(db) as session, pymongo.timeout(seconds):
        return _with_transaction(db, session, write)


def _with_transaction(db: Db, session: ClientSession, write: Callable[[ClientSession], T]) -> T:
    # By default, a transaction has the concerns of the client, which are not set, and not those of the database.
    return session.with_transaction(write, read_concern=ReadConcern("local"), write_concern=db.write_concern)
