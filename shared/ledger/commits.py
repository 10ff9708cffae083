"""A batch becomes true in one transaction, or never."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import pymongo
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shared.errors import CommitUnknown, InFlight, StoreAway
from shared.ids import image_id
from shared.ledger.idempotency import KEPT_S, Begun
from shared.states import BatchState, ImageState
from shared.storage.mongo import Db, Document, linearizable, translate_errors

_SETTLE_S: Final = 5.0
_AT_ONCE: Final = datetime(1970, 1, 1)
"""Claims compare it with MongoDB's clock; by that of a web host which is ahead, what it accepted would wait for nothing."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image as the front accepted it. ``offset`` and ``file_size`` (bytes) say where it lies in the spool."""

    index: int
    ext: str
    content_type: str
    file_size: int
    sha256: str
    offset: int
    timestamp: datetime
    store_name: str
    camera_id: str
    barcode: str | None = None
    filename: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch as the front accepted it; times are naive UTC."""

    id: str
    images: list[NewImage]
    augmentations: tuple[str, ...]
    detect: bool
    created_at: datetime


def commit_batch(
    db: Db,
    batch: NewBatch,
    *,
    idempotency: Begun | None = None,
    answer: dict[str, Any] | None = None,
    bytes_kept: Callable[[float], None] = lambda _: None,
    deadline_s: float = 5.0,
) -> None:
    """Write ledger line, batch, images and the key's record in one transaction; on return they are journalled by a majority.

    The stores get their turn by ``turns.touch``, which nobody need wait for: the sweep makes up for one that was lost.

    :param answer: body of the 202, kept for replays of the key.
    :param bytes_kept: called when only the commit is missing, with the seconds that are left; returns once the bytes of the
        batch are durable, or raises.
    :raises StoreAway: nothing was accepted, and nothing of it ever will be.
    :raises CommitUnknown: MongoDB went away at the commit; ``extra["batch_id"]`` names the batch.
    :raises InFlight: the key was taken over by a later request; nothing was accepted.
    """
    documents = [image_document(batch, image) for image in batch.images]
    header = batch_document(batch)
    until = time.monotonic() + deadline_s
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise StoreAway("The database is busy; nothing was accepted.", retry_after=2)
        try:
            with pymongo.timeout(left), db.client.start_session() as session:
                _write(db, session, batch, header, documents, idempotency, answer)
                bytes_kept(until - time.monotonic())
                _commit(session)  # whatever is raised before: leaving the session rolls back
            break
        except _UnknownOutcome as error:
            _settle(db, batch.id, error)
            break
        except OperationFailure as error:
            if not error.has_error_label("TransientTransactionError"):
                raise StoreAway("The database refused; nothing was accepted.", retry_after=2) from error
        except PyMongoError as error:  # before the commit was sent: the server rolls back by itself
            raise StoreAway("The database does not answer; nothing was accepted.", retry_after=2) from error


def abandon(db: Db, batch_id: str) -> bool:
    """Make sure that a batch which is not there can never come: insert its tombstone.

    :returns: True when no such batch exists or ever will; False when it had been committed. Either is held by a majority.
    :raises PyMongoError: it cannot be said within five seconds.
    """
    with pymongo.timeout(_SETTLE_S):
        try:
            db.ledger.insert_one({"_id": batch_id, "received": 0, "deleted": 0, "state": "abandoned", "at": None})
        except DuplicateKeyError:  # by what one server holds, which may yet be rolled back
            line = linearizable(db).ledger.find_one({"_id": batch_id}, {"state": 1})
            if line is None:
                raise
            return bool(line["state"] == "abandoned")
    return True


class _UnknownOutcome(Exception):
    """The commit was sent and its answer never came."""


def _write(
    db: Db,
    session: ClientSession,
    batch: NewBatch,
    header: Document,
    documents: list[Document],
    idempotency: Begun | None,
    answer: dict[str, Any] | None,
) -> None:
    session.start_transaction(ReadConcern("local"), WriteConcern("majority", j=True))
    line = {"_id": batch.id, "received": len(documents), "deleted": 0, "state": "accepted", "at": batch.created_at}
    db.ledger.insert_one(line, session=session)
    db.batches.insert_one(header, session=session)
    db.images.insert_many(documents, ordered=True, session=session)
    if idempotency is not None:
        _keep_key(db, session, batch.id, idempotency, answer)


def _commit(session: ClientSession) -> None:
    try:
        session.commit_transaction()
    except PyMongoError as error:
        if error.has_error_label("TransientTransactionError") and not error.has_error_label("UnknownTransactionCommitResult"):
            raise
        raise _UnknownOutcome from error


def _keep_key(db: Db, session: ClientSession, batch_id: str, begun: Begun, answer: dict[str, Any] | None) -> None:
    expires_at = {"$add": ["$$NOW", KEPT_S * 1000]}
    kept = {"state": "kept", "batch_id": batch_id, "answer": {"$literal": answer}, "expires_at": expires_at}
    found = db.idempotency.update_one({"_id": begun.key, "token": begun.token}, [{"$set": kept}], session=session)
    if not found.matched_count:
        raise InFlight("Another request with this key has taken over.", retry_after=2)


def _settle(db: Db, batch_id: str, cause: Exception) -> None:
    """Find out whether a commit without an answer took place, by trying to make it impossible."""
    try:
        nothing_accepted = abandon(db, batch_id)
    except PyMongoError:
        raise CommitUnknown(
            "The database went away at the commit: the batch may have been accepted. Retry with the same Idempotency-Key.",
            retry_after=5,
            extra={"batch_id": batch_id},
        ) from cause
    if nothing_accepted:
        raise StoreAway("The database went away; nothing was accepted.", retry_after=2) from cause


def batch_document(batch: NewBatch) -> Document:
    """Give the stored form of a batch as it is accepted."""
    return {
        "_id": batch.id,
        "status": BatchState.QUEUED.value,
        "total": len(batch.images),
        "bytes": sum(image.file_size for image in batch.images),
        "stores": sorted({image.store_name for image in batch.images}),
        "counts": None,
        "created_at": batch.created_at,
        "finished_at": None,
        "generation": 0,
        "listed": True,
        "open": True,
        "spooled": True,
        "unswept": True,
        "checked_at": batch.created_at,
    }


def image_document(batch: NewBatch, image: NewImage) -> Document:
    """Give the stored form of an image as it is accepted."""
    return {
        "_id": image_id(batch.id, image.index),
        "batch_id": batch.id,
        "index": image.index,
        "status": ImageState.QUEUED.value,
        "timestamp": image.timestamp,
        "store_name": image.store_name,
        "camera_id": image.camera_id,
        "barcode": image.barcode,
        "filename": image.filename,
        "extra": image.extra,
        "content_type": image.content_type,
        "file_size": image.file_size,
        "sha256": image.sha256,
        "width": None,
        "height": None,
        "exif": None,
        "quality": None,
        "detections": [],
        "model": None,
        "augmentations": [],
        "barcodes": [],
        "barcode_check": None,
        "tags": [],
        "error": None,
        "created_at": batch.created_at,
        "updated_at": batch.created_at,
        "finished_at": None,
        "work": {
            "ext": image.ext,
            "offset": image.offset,
            "fence": 0,
            "owner": None,
            "claim": None,
            "lease_until": None,
            "not_before": _AT_ONCE,
            "solo": False,
            "releases": 0,
            "faults": 0,
            "augmentations": list(batch.augmentations),
            "detect": batch.detect,
            "generation": 0,
        },
    }


def spooled_batches(db: Db, batch_ids: list[str]) -> set[str]:
    """Say which of these ids belong to a batch that was accepted (sweep)."""
    with translate_errors():
        return {line["_id"] for line in db.ledger.find({"_id": {"$in": batch_ids}, "state": {"$ne": "abandoned"}}, {"_id": 1})}
