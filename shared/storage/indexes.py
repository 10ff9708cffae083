"""Creates the indexes that ``shared.storage.schema`` declares, and compares them with the indexes of a database.

Building an index blocks neither reads nor writes: MongoDB locks the collection only for a moment at the beginning and
at the end. If the process that requested a build ends, the server completes the build nevertheless. So an index of ten
million images can take many minutes while the service is running.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import pymongo
from pymongo import IndexModel
from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError

from shared.storage import schema
from shared.storage.mongo import Db, Document, translate_errors
from shared.storage.schema.superseded import SUPERSEDED

_BUILD_S: Final = 12 * 3600.0
"""Time limit in seconds for the indexes of one collection, which replaces the time limit for a response."""
_WAIT_S: Final = 1.0
_NAMESPACE_NOT_FOUND: Final = 26
_CONFLICTS: Final = frozenset({85, 86})
"""The error codes IndexOptionsConflict and IndexKeySpecsConflict."""


class IndexName(NamedTuple):
    """The collection and the name of a declared index."""

    collection: str
    name: str

    def __str__(self) -> str:
        return f"{self.collection}.{self.name}"


class IndexConflict(Exception):
    """A declared index cannot be created, because the database has another index with the same name or the same keys.

    An index whose declaration changes must get a new name. A migration drops the old index in a later release.
    """


class IndexBuild(NamedTuple):
    """An index build: its collection, and how many documents it has processed (0 of 0 if this is unknown)."""

    collection: str
    done: int
    total: int


OnWait = Callable[[IndexBuild], None]


def create_indexes(db: Db, on_wait: OnWait = lambda _: None) -> None:
    """Create all missing collections and indexes, and wait until the indexes are built.

    The function can be called repeatedly, and by several processes at the same time.

    :param on_wait: called about once per second while indexes are being built. If it raises an exception, this function
        ends, and the server continues the build.
    :raises IndexConflict: when another index has the name or the keys of a declared index.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        existing = set(db.list_collection_names())
        for collection, models in _declared():
            if collection not in existing:
                with suppress(CollectionInvalid):  # another process has created the collection
                    db.create_collection(collection)
            if missing := _missing(db, collection, models):
                _build(db, collection, missing, on_wait)


def find_missing_indexes(db: Db) -> list[IndexName]:
    """Return the declared indexes that the database does not have, is still building, or has with other keys or options.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return [
            IndexName(collection, model.document["name"])
            for collection, models in _declared()
            for model in _missing(db, collection, models)
        ]


def find_superseded_indexes(db: Db) -> dict[str, str]:
    """Return the indexes of older versions that the database still has, as ``collection.index``, and what they were for.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        found = {collection: {index["name"] for index in _list_built(db, collection)} for collection in SUPERSEDED}
    return {
        str(IndexName(collection, name)): purpose
        for collection, purposes in SUPERSEDED.items()
        for name, purpose in purposes.items()
        if name in found[collection]
    }


def has_superseded_index(db: Db, collection: str) -> bool:
    """Return whether a collection has an index of an older version, or is about to have it, because it is being built.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return any(index["name"] in SUPERSEDED[collection] for index in db[collection].list_indexes())


def _declared() -> Iterator[tuple[str, Sequence[IndexModel]]]:
    for document in schema.DOCUMENTS:
        yield document._meta["collection"], document.indexes  # noqa: SLF001 -- MongoEngine has no public API for it


def _missing(db: Db, collection: str, models: Sequence[IndexModel]) -> list[IndexModel]:
    if not models:
        return []
    built = [_definition(spec) for spec in _list_built(db, collection)]
    return [model for model in models if _definition(model.document) not in built]


def _list_built(db: Db, collection: str) -> list[Document]:
    """Return the definitions of a collection's indexes, without those that are being built."""
    try:
        # Without this option, the server also returns indexes that are being built, but does not mark them.
        found = db.command("listIndexes", collection, includeBuildUUIDs=True)
    except OperationFailure as error:
        if error.code != _NAMESPACE_NOT_FOUND:
            raise
        return []
    return [index for index in found["cursor"]["firstBatch"] if "buildUUID" not in index]


def _definition(spec: Document) -> tuple[list[tuple[str, object]], Document]:
    """Return the keys of an index in their order, and its name and options in a form that can be compared."""
    return list(spec["key"].items()), {name: value for name, value in spec.items() if name not in {"v", "ns", "key"}}


def _build(db: Db, collection: str, models: Sequence[IndexModel], on_wait: OnWait) -> None:
    errors: list[PyMongoError] = []

    def build() -> None:
        try:
            with pymongo.timeout(_BUILD_S):
                db[collection].create_indexes(models)
        except PyMongoError as error:
            errors.append(error)

    thread = threading.Thread(target=build, name="build-indexes", daemon=True)  # must not delay the end of the process
    thread.start()
    thread.join(_WAIT_S)
    while thread.is_alive():
        on_wait(_read_build(db, collection))
        thread.join(_WAIT_S)
    for error in errors:
        if isinstance(error, OperationFailure) and error.code in _CONFLICTS:
            names = ", ".join(_conflicting(db, collection, models))
            message = (error.details or {}).get("errmsg")
            raise IndexConflict(f"The database has other indexes with the names or the keys of {names} in the collection {collection}: {message}") from error
        raise error


def _conflicting(db: Db, collection: str, models: Sequence[IndexModel]) -> list[str]:
    """Return the names of those indexes that have the same name or the same keys as an existing index."""
    built = _list_built(db, collection)
    return [
        model.document["name"]
        for model in models
        if any(spec["name"] == model.document["name"] or spec["key"] == dict(model.document["key"]) for spec in built)
    ]


def _read_build(db: Db, collection: str) -> IndexBuild:
    """Return the progress of a build; it is unknown if the user of the database may not see other users' operations."""
    pipeline: list[Document] = [
        {"$currentOp": {"allUsers": True, "idleConnections": False}},
        {"$match": {"ns": f"{db.name}.{collection}", "command.createIndexes": collection, "progress": {"$exists": True}}},
    ]
    try:
        found = next(iter(db.client.admin.aggregate(pipeline)), None)
    except OperationFailure:
        found = None
    progress = found["progress"] if found else {"done": 0, "total": 0}
    return IndexBuild(collection, int(progress["done"]), int(progress["total"]))
