"""Stores which request an ``Idempotency-Key`` belongs to.

The record of a key is part of the transaction that commits the batch. So a record exists if and only if its batch was
accepted, and of several requests with one key, at most one is accepted: MongoDB lets only one open transaction write the
record. MongoDB ends a transaction whose process has died (``transactionLifetimeLimitSeconds``).

Earlier versions stored a record with the state ``in_flight`` before the transaction. During a rolling upgrade, there can
be such records; they are valid for a minute.
"""

from dataclasses import dataclass
from typing import Any, Final

import pymongo
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from shared.errors import Gone, IdempotencyMismatch, InFlight
from shared.storage import mongo_errors
from shared.storage.mongo import Db, Document, linearizable, translate_errors

KEPT_S: Final = 24 * 3600
_RETRY_AFTER_S: Final = 2
_PROOF_S: Final = 5.0
_WRITE_CONFLICT: Final = 112


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The ``Idempotency-Key`` of a request.

    ``key`` is one string, in which the caller has joined the account and the key that the client sent. ``fingerprint`` is
    a digest of the parsed request.
    """

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to an earlier, accepted request with the same key. ``body`` is the body of its 202 response."""

    body: dict[str, Any]
    batch_id: str


def store_response(
    db: Db, session: ClientSession, request: RequestKey, batch_id: str, body: dict[str, Any] | None
) -> bool:
    """Store the response to a request under its key, in the transaction that commits the batch.

    :returns: False if the key has a record that is still valid. The caller must then roll back the transaction, and call
        ``read_response``.
    :raises InFlight: when another open transaction writes the record of this key.
    :raises PyMongoError: when MongoDB does not respond.
    """
    record = {
        "_id": "$_id",
        "fingerprint": request.fingerprint,
        "token": batch_id,
        "state": "kept",
        "batch_id": batch_id,
        "answer": {"$literal": body},
        "expires_at": {"$add": ["$$NOW", KEPT_S * 1000]},
    }
    is_free = {"$lte": ["$expires_at", "$$NOW"]}  # also true if there is no record yet
    update = [{"$replaceWith": {"$cond": [is_free, record, "$$ROOT"]}}]
    try:
        stored = db.idempotency.update_one({"_id": request.key}, update, upsert=True, session=session)
    except DuplicateKeyError:  # another transaction has just committed the record
        return False
    except OperationFailure as error:
        if error.code == _WRITE_CONFLICT:
            raise _in_flight() from error
        raise
    return stored.upserted_id is not None or stored.modified_count > 0


def read_response(db: Db, request: RequestKey) -> StoredResponse:
    """Return the response that is stored under the key of a request.

    :raises IdempotencyMismatch: when the key was used for a request with another fingerprint.
    :raises InFlight: when the first request with the key is still in progress, or when MongoDB cannot confirm at
        present that the batch of the first request is stored durably.
    :raises Gone: when the batch of the first request has been deleted.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        record = db.idempotency.find_one({"_id": request.key})
    if record is None:  # it has expired in the meantime
        raise _in_flight()
    if record["fingerprint"] != request.fingerprint:
        raise IdempotencyMismatch("This Idempotency-Key was already used with a different request. Use a new key.")
    if record["state"] == "in_flight":
        raise _in_flight()
    return _read_response(db, record)


def _in_flight() -> InFlight:
    return InFlight(
        "The first request with this Idempotency-Key is still in progress. Retry later.", retry_after=_RETRY_AFTER_S
    )


def _read_response(db: Db, found: Document) -> StoredResponse:
    """Return the stored response after a majority of the replica set has confirmed it.

    The confirmation is needed because every 202 response, including a repeated one, promises that the batch is kept.
    """
    try:
        with pymongo.timeout(_PROOF_S):
            record = linearizable(db).idempotency.find_one(
                {"_id": found["_id"], "token": found["token"], "state": "kept"}
            )
            batch = record and linearizable(db).batches.find_one(
                {"_id": record["batch_id"], "listed": True}, {"_id": 1}
            )
    except PyMongoError as error:  # it is unknown whether the request was accepted
        if not mongo_errors.is_unavailable(error):
            raise mongo_errors.translate(error) from error
        raise InFlight(
            "The database cannot confirm yet that the first request with this Idempotency-Key was accepted. Retry later.",
            retry_after=_RETRY_AFTER_S,
        ) from error
    if record is None:  # a majority never stored the record, or the record has expired
        raise InFlight(
            "The first request with this Idempotency-Key was not accepted. Send the request once more.",
            retry_after=_RETRY_AFTER_S,
        )
    if batch is None:
        raise Gone(
            "The batch that was accepted with this Idempotency-Key has been deleted.",
            extra={"batch_id": record["batch_id"]},
        )
    return StoredResponse(record["answer"], record["batch_id"])


def is_accepted(db: Db, key: str) -> bool:
    """Return whether a request with this key was accepted and its response is still stored."""
    query = {"_id": key, "state": "kept", "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
    with translate_errors():
        return db.idempotency.find_one(query, {"_id": 1}) is not None
