"""Which request an ``Idempotency-Key`` belongs to.

A record is ``in_flight`` for at most a minute, then any request may take it over. The transaction of the commit changes it to
``kept``, and only if it still has the token of the request that commits.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Final

import pymongo
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.write_concern import WriteConcern

from shared.errors import Gone, IdempotencyMismatch, InFlight
from shared.storage.mongo import Db, Document, linearizable, translate_errors

IN_FLIGHT_S: Final = 60
KEPT_S: Final = 24 * 3600
_RETRY_AFTER_S: Final = 2
_PROOF_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class KeyReservation:
    """The key belongs to this request until its response is sent; ``token`` identifies the request."""

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The request of this key was accepted before; ``body`` is the body of its 202."""

    body: dict[str, Any]
    batch_id: str


def reserve_key(db: Db, key: str, fingerprint: str) -> KeyReservation | StoredResponse:
    """Reserve the key for this request, or return the response that was stored for it.

    :param key: account and key, joined by the caller.
    :param fingerprint: digest of the parsed request.
    :raises IdempotencyMismatch: when the key belongs to another request.
    :raises InFlight: when the first request with the key is still in progress, or when MongoDB cannot prove now that its batch is
        stored durably.
    :raises Gone: when its batch has been deleted since.
    :raises StoreAway: when MongoDB does not respond.
    """
    token = uuid.uuid4().hex
    is_free = {"$lte": ["$expires_at", "$$NOW"]}  # a missing field sorts before every date
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
        # A crash of MongoDB may lose this record without harm: the commit then finds no record and fails.
        records = db.get_collection("idempotency", write_concern=WriteConcern(w=1))
        try:
            record = records.find_one_and_update(
                {"_id": key}, update, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # of two concurrent upserts the other was first
            record = records.find_one({"_id": key})
        if record is None:  # the other request has released the key already
            raise InFlight(
                "The first request with this Idempotency-Key is still in progress. Retry later.",
                retry_after=_RETRY_AFTER_S,
            )
        if record["token"] == token:
            return KeyReservation(key, token)
        if record["fingerprint"] != fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key was used with another request. Use a new key.")
        if record["state"] == "in_flight":
            raise InFlight(
                "The first request with this Idempotency-Key is still in progress. Retry later.",
                retry_after=_RETRY_AFTER_S,
            )
    return _read_response(db, record)


def _read_response(db: Db, found: Document) -> StoredResponse:
    """Return the stored response once a majority confirms it, because a repeated 202 is as much a promise as the first."""
    try:
        with pymongo.timeout(_PROOF_S):
            record = linearizable(db).idempotency.find_one(
                {"_id": found["_id"], "token": found["token"], "state": "kept"}
            )
            batch = record and linearizable(db).batches.find_one(
                {"_id": record["batch_id"], "listed": True}, {"_id": 1}
            )
    except PyMongoError as error:  # it is unknown whether the request was accepted
        raise InFlight(
            "The database cannot confirm yet that the first request with this Idempotency-Key was accepted. Retry later.",
            retry_after=_RETRY_AFTER_S,
        ) from error
    if record is None:  # a majority never stored it, or it has expired
        raise InFlight(
            "The first request with this Idempotency-Key was not accepted. Send it again.", retry_after=_RETRY_AFTER_S
        )
    if batch is None:
        raise Gone("The batch of this request has been deleted.", extra={"batch_id": record["batch_id"]})
    return StoredResponse(record["answer"], record["batch_id"])


def is_accepted(db: Db, key: str) -> bool:
    """Return whether a request with this key was accepted and its response is still stored."""
    query = {"_id": key, "state": "kept", "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
    with translate_errors():
        return db.idempotency.find_one(query, {"_id": 1}) is not None


def release_key(db: Db, reservation: KeyReservation) -> None:
    """Release the key of a request that was not accepted. Only a 202 is stored."""
    with translate_errors():
        db.idempotency.delete_one({"_id": reservation.key, "token": reservation.token, "state": "in_flight"})
