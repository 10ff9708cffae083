"""Which request an ``Idempotency-Key`` belongs to.

A record is ``in_flight`` for at most a minute, then anyone may take it over; the commit's own transaction turns it into
``kept``, and only if it still carries the token of the request that commits.
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
class Begun:
    """This request owns the key until it is answered."""

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The key's request was accepted before; ``answer`` is the body of its 202."""

    answer: dict[str, Any]
    batch_id: str


def begin(db: Db, key: str, fingerprint: str) -> Begun | Replay:
    """Take the key for this request, or find what became of it.

    :param key: account and key, joined by the caller.
    :param fingerprint: digest of the parsed request.
    :raises IdempotencyMismatch: the key belongs to another request.
    :raises InFlight: the first request with it has not been answered yet, or it cannot be proven now that its batch is kept for good.
    :raises Gone: its batch has been deleted since.
    :raises StoreAway: MongoDB does not answer.
    """
    token = uuid.uuid4().hex
    free = {"$lte": ["$expires_at", "$$NOW"]}  # a missing field sorts below every date
    mine = {"fingerprint": fingerprint, "token": token, "state": "in_flight"}
    take = [
        {
            "$replaceWith": {
                "$cond": [
                    free,
                    {"_id": "$_id", **mine, "expires_at": {"$add": ["$$NOW", IN_FLIGHT_S * 1000]}},
                    "$$ROOT",
                ]
            }
        }
    ]
    with translate_errors():
        # Losing this record in a crash of MongoDB costs nothing: the commit then finds no record and gives up.
        records = db.get_collection("idempotency", write_concern=WriteConcern(w=1))
        try:
            record = records.find_one_and_update({"_id": key}, take, upsert=True, return_document=ReturnDocument.AFTER)
        except DuplicateKeyError:  # two upserts met, and the other was first
            record = records.find_one({"_id": key})
        if record is None:  # and is gone again
            raise InFlight("The first request with this key is being answered.", retry_after=_RETRY_AFTER_S)
        if record["token"] == token:
            return Begun(key, token)
        if record["fingerprint"] != fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key was used with another request.")
        if record["state"] == "in_flight":
            raise InFlight("The first request with this key is being answered.", retry_after=_RETRY_AFTER_S)
    return _replay(db, record)


def _replay(db: Db, seen: Document) -> Replay:
    """Give the first answer again, once it is proven that it stays: to say 202 is a promise, the second time too."""
    try:
        with pymongo.timeout(_PROOF_S):
            record = linearizable(db).idempotency.find_one({"_id": seen["_id"], "token": seen["token"], "state": "kept"})
            batch = record and linearizable(db).batches.find_one({"_id": record["batch_id"], "listed": True}, {"_id": 1})
    except PyMongoError as error:  # neither "nothing was accepted" nor "it was" would be true for sure
        raise InFlight("The first request with this key is not known to be kept yet.", retry_after=_RETRY_AFTER_S) from error
    if record is None:  # a majority never had it, or it has expired
        raise InFlight("The first request with this key has come to nothing; send it again.", retry_after=_RETRY_AFTER_S)
    if batch is None:
        raise Gone("The batch of this request has been deleted.", extra={"batch_id": record["batch_id"]})
    return Replay(record["answer"], record["batch_id"])


def is_kept(db: Db, key: str) -> bool:
    """Say whether a request with this key has been accepted and is still remembered."""
    remembered = {"_id": key, "state": "kept", "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
    with translate_errors():
        return db.idempotency.find_one(remembered, {"_id": 1}) is not None


def forget(db: Db, begun: Begun) -> None:
    """Free the key of a request that was not accepted. Only a 202 is kept."""
    with translate_errors():
        db.idempotency.delete_one({"_id": begun.key, "token": begun.token, "state": "in_flight"})
