"""Stores which request an ``Idempotency-Key`` belongs to.

A record has the state ``in_flight`` for at most one minute. After that, any request with the key can take over the
record. The transaction that commits the batch changes the state to ``kept``, but only if the record still has the token
of the committing request.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Final

import pymongo
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.write_concern import WriteConcern

from shared.errors import Gone, IdempotencyMismatch, InFlight
from shared.storage import mongo_errors
from shared.storage.mongo import Db, Document, linearizable, translate_errors

IN_FLIGHT_S: Final = 60
KEPT_S: Final = 24 * 3600
_RETRY_AFTER_S: Final = 2
_PROOF_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class KeyReservation:
    """A key that is reserved for a request until its response has been sent. ``token`` identifies the request."""

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to an earlier, accepted request with the same key. ``body`` is the body of its 202 response."""

    body: dict[str, Any]
    batch_id: str


def reserve_key(db: Db, key: str, fingerprint: str) -> KeyReservation | StoredResponse:
    """Reserve a key for a request, or return the response that is stored under the key.

    :param key: one string, in which the caller has joined the account and the ``Idempotency-Key`` of the request.
    :param fingerprint: digest of the parsed request.
    :raises IdempotencyMismatch: when the key was used for a request with another fingerprint.
    :raises InFlight: when the first request with the key is still in progress, or when MongoDB cannot confirm at
        present that the batch of the first request is stored durably.
    :raises Gone: when the batch of the first request has been deleted.
    :raises StoreAway: when MongoDB does not respond.
    """
    token = uuid.uuid4().hex
    is_free = {"$lte": ["$expires_at", "$$NOW"]}  # also true if ``expires_at`` is missing
    new_fields = {"fingerprint": fingerprint, "token": token, "state": "in_flight"}
    update = [
        {
            "$replaceWith": {
                "$cond": [
                    is_free,
                    {"_id": "$_id", **new_fields, "expires_at": {"$add": ["$$NOW", IN_FLIGHT_S * 1000]}},
                    "$$ROOT",
                ]
            }
        }
    ]
    with translate_errors():
        # A crash of MongoDB can lose this record. This is acceptable, because the commit then finds no record and
        # fails.
        records = db.get_collection("idempotency", write_concern=WriteConcern(w=1))
        try:
            record = records.find_one_and_update(
                {"_id": key}, update, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # a concurrent upsert was faster
            record = records.find_one({"_id": key})
        if record is None:  # the concurrent request has already released the key
            raise InFlight(
                "The first request with this Idempotency-Key is still in progress. Retry later.",
                retry_after=_RETRY_AFTER_S,
            )
        if record["token"] == token:
            return KeyReservation(key, token)
        if record["fingerprint"] != fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key was already used with a different request. Use a new key.")
        if record["state"] == "in_flight":
            raise InFlight(
                "The first request with this Idempotency-Key is still in progress. Retry later.",
                retry_after=_RETRY_AFTER_S,
            )
    return _read_response(db, record)


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


def release_key(db: Db, reservation: KeyReservation) -> None:
    """Release the key of a request that was not accepted, so that the client can use the key for another attempt."""
    with translate_errors():
        db.idempotency.delete_one({"_id": reservation.key, "token": reservation.token, "state": "in_flight"})
