"""Accepts a batch in one transaction, or ensures that the batch was not accepted and never will be."""

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

from shared.errors import CommitUnknown, StoreAway, TooSlow
from shared.ids import image_id
from shared.ledger import idempotency
from shared.ledger.idempotency import RequestKey, StoredResponse
from shared.ledger.turns import Turn
from shared.priorities import NORMAL, Priority
from shared.storage import mongo_errors, schema
from shared.storage.mongo import Db, Document, linearizable, session_with_rollback, translate_errors

_ABANDON_S: Final = 5.0
_BATCH: Final = schema.initial_document(schema.Batch)
_IMAGE: Final = schema.initial_document(schema.Image)
_WORK: Final[Document] = _IMAGE["work"]
_IMAGE_LISTS: Final = tuple(name for name, value in _IMAGE.items() if value == [])


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image as parsed from the upload. ``offset`` and ``file_size`` (in bytes) locate the image in the spool."""

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
    """A batch as parsed from the upload. Times are naive UTC.

    ``account`` owns the batch, and ``created_by`` is the person or the API key that uploaded it; see
    ``shared.accounts.permissions.Principal``. Both are None if access was open.
    """

    id: str
    images: list[NewImage]
    augmentations: tuple[str, ...]
    detect: bool
    created_at: datetime
    account: str | None = None
    created_by: str | None = None
    priority: Priority = NORMAL

    def turns(self) -> set[Turn]:
        """Return the turns of the images (``shared.ledger.turns``)."""
        return {Turn(self.account, self.priority, image.store_name) for image in self.images}


def commit_batch(
    db: Db,
    batch: NewBatch,
    *,
    request_key: RequestKey | None = None,
    response_body: dict[str, Any] | None = None,
    wait_for_spool: Callable[[float], None] = lambda _: None,
    deadline_s: float = 5.0,
) -> StoredResponse | None:
    """Write the ledger document, the batch, its images, and the idempotency record in one transaction.

    When the function returns, a majority of the replica set has journalled these documents. The caller must then call
    ``turns.touch`` with the turns of the batch. If that call fails, the sweep repairs the rotation, so the caller need not
    wait for it.

    :param request_key: the ``Idempotency-Key`` of the request, if it has one.
    :param response_body: body of the 202 response, which is stored for later requests with the same key.
    :param wait_for_spool: function that is called with the remaining seconds just before the commit. It returns when
        the spool of the batch is durable, or raises an exception, which prevents the commit.
    :param deadline_s: seconds for the transaction, including its retries.
    :returns: None if the batch was accepted. If an earlier request with the same key was accepted, its response; nothing
        of this request was accepted.
    :raises StoreAway: when nothing was accepted. The batch will not be accepted later either.
    :raises StoreRefused: when MongoDB refuses the documents. Nothing was accepted.
    :raises CommitUnknown: when MongoDB did not respond to the commit, so the batch may have been accepted;
        ``extra["batch_id"]`` is its id.
    :raises InFlight: when another request with the key is in progress. Nothing was accepted.
    :raises IdempotencyMismatch: when the key was used for another request. Nothing was accepted.
    :raises Gone: when the batch of the earlier request with the key has been deleted. Nothing was accepted.
    """
    documents = [image_document(batch, image) for image in batch.images]
    header = batch_document(batch)
    until = time.monotonic() + deadline_s
    while True:
        remaining_s = until - time.monotonic()
        if remaining_s <= 0:
            raise _busy()
        try:
            with session_with_rollback(db) as session, pymongo.timeout(remaining_s):
                session.start_transaction(ReadConcern("local"), WriteConcern("majority", j=True))
                if request_key is None or idempotency.store_response(db, session, request_key, batch.id, response_body):
                    _insert(db, session, batch, header, documents)
                    wait_for_spool(until - time.monotonic())
                    _commit(session)  # after an earlier exception, the session rolls back
                    return None
            break
        except _UnknownOutcome as error:
            _resolve_outcome(db, batch.id, error)
            return None
        except PyMongoError as error:  # the commit was not sent, so the server rolls back
            is_conflict = isinstance(error, OperationFailure) and error.has_error_label("TransientTransactionError")
            if not is_conflict:
                translated = mongo_errors.translate(error)
                raise (_busy() if isinstance(translated, TooSlow) else translated) from error
    return idempotency.read_response(db, request_key)


def abandon(db: Db, batch_id: str) -> bool:
    """Insert the tombstone of a batch, so that the batch cannot be committed any more.

    :returns: True if the batch was not committed and never will be; False if it was committed. In both cases, a
        majority of the replica set has confirmed the result.
    :raises PyMongoError: when no result is confirmed within five seconds.
    """
    with pymongo.timeout(_ABANDON_S):
        try:
            db.ledger.insert_one({"_id": batch_id, "received": 0, "deleted": 0, "state": "abandoned", "at": None})
        except DuplicateKeyError:  # one server has the document, but may still roll it back
            line = linearizable(db).ledger.find_one({"_id": batch_id}, {"state": 1})
            if line is None:
                raise
            return bool(line["state"] == "abandoned")
    return True


def _busy() -> StoreAway:
    return StoreAway("The database is busy; nothing was accepted. Retry later.", retry_after=2)


class _UnknownOutcome(Exception):
    """The commit was sent, but no response arrived."""


def _insert(db: Db, session: ClientSession, batch: NewBatch, header: Document, documents: list[Document]) -> None:
    line = {"_id": batch.id, "received": len(documents), "deleted": 0, "state": "accepted", "at": batch.created_at}
    db.ledger.insert_one(line, session=session)
    db.batches.insert_one(header, session=session)
    db.images.insert_many(documents, ordered=True, session=session)


def _commit(session: ClientSession) -> None:
    try:
        session.commit_transaction()
    except PyMongoError as error:
        is_unknown = error.has_error_label("UnknownTransactionCommitResult")
        if error.has_error_label("TransientTransactionError") and not is_unknown:
            raise
        raise _UnknownOutcome from error


def _resolve_outcome(db: Db, batch_id: str, cause: Exception) -> None:
    """Find out whether a commit without a response took place, by trying to abandon the batch."""
    try:
        is_abandoned = abandon(db, batch_id)
    except PyMongoError as error:
        mongo_errors.translate(error)  # logs why the outcome is unknown
        raise CommitUnknown(
            "The database did not respond to the commit, so the batch may have been accepted. "
            "Retry with the same Idempotency-Key.",
            retry_after=5,
            extra={"batch_id": batch_id},
        ) from cause
    if is_abandoned:
        raise StoreAway(
            "The database did not respond to the commit; nothing was accepted. Retry later.", retry_after=2
        ) from cause


def batch_document(batch: NewBatch) -> Document:
    """Return the stored form of a new batch; ``shared.storage.schema`` declares its fields and their initial values."""
    return _BATCH | {
        "_id": batch.id,
        "total": len(batch.images),
        "bytes": sum(image.file_size for image in batch.images),
        "stores": sorted({image.store_name for image in batch.images}),
        "created_at": batch.created_at,
        "account": batch.account,
        "created_by": batch.created_by,
        "checked_at": batch.created_at,
    }


def image_document(batch: NewBatch, image: NewImage) -> Document:
    """Return the stored form of a new image; ``shared.storage.schema`` declares its fields and their initial values."""
    work = _WORK | {
        "ext": image.ext,
        "offset": image.offset,
        "augmentations": list(batch.augmentations),
        "detect": batch.detect,
    }
    if batch.priority != NORMAL:
        work["priority"] = batch.priority
    document = _IMAGE | {
        "_id": image_id(batch.id, image.index),
        "batch_id": batch.id,
        "index": image.index,
        "timestamp": image.timestamp,
        "store_name": image.store_name,
        "camera_id": image.camera_id,
        "barcode": image.barcode,
        "filename": image.filename,
        "extra": image.extra,
        "content_type": image.content_type,
        "file_size": image.file_size,
        "sha256": image.sha256,
        "created_at": batch.created_at,
        "updated_at": batch.created_at,
        "account": batch.account,
        "created_by": batch.created_by,
        "work": work,
    }
    for name in _IMAGE_LISTS:
        document[name] = []  # otherwise, all images would share the list objects of the template
    return document


def find_accepted(db: Db, batch_ids: list[str]) -> set[str]:
    """Return those elements of ``batch_ids`` whose batch was accepted (called by the sweep)."""
    query = {"_id": {"$in": batch_ids}, "state": {"$ne": "abandoned"}}
    with translate_errors():
        return {row["_id"] for row in db.ledger.find(query, {"_id": 1})}
