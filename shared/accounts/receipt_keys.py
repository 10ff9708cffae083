"""The keys that sign the receipts of batches.

A receipt must be verifiable for years, but a signing key is dropped a month after another one has taken its place. So the key of
receipts is derived from the signing key, and the derived key is kept in the database before the first receipt is signed with it.
Nobody can find the signing key from it, or make a token or a signed URL with it. Whoever can read the database can make
receipts that verify.

The id of a key contains a digest of it, so two keys never share an id, even if an operator gives a new signing key the id of an
earlier one. Without signing keys, which is possible only while access is open and no program of Shelfsight has started the
web front, a key is generated in the database.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.accounts.signing_keys import KeySet
from shared.clock import utc_now
from shared.errors import Environment, NotFound
from shared.storage.mongo import Db, Document, deadline, majority, translate_errors

PURPOSE: Final = "shelfsight receipts 1"
"""For ``KeySet.derive``."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}-[0-9a-f]{16}\Z", re.ASCII)
_WITHOUT_SIGNING_KEY: Final = "database"
_RETRY_S: Final = 60


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """A key that signs receipts. ``secret`` has 32 bytes."""

    id: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as ``list_keys`` returns it. ``signing_key`` is None if it was generated. Times are naive UTC."""

    key: ReceiptKey
    signing_key: str | None
    created_at: datetime
    revoked_at: datetime | None


def obtain(db: Db, keys: KeySet, deadline_s: float) -> ReceiptKey:
    """Return the key that signs receipts now. It is in the database, durably, before this returns.

    :raises Environment: when the key was revoked. After ``rotate-keys --drop-old``, this ends when this process reads the new
        signing key, within seconds. Otherwise, it ends when an operator replaces the signing key.
    :raises StoreAway: when MongoDB does not respond within ``deadline_s``.
    """
    with deadline(deadline_s):
        if keys.signing_id is None:
            return _obtain_generated(db)
        key = derive(keys, keys.signing_id)
        if _keep(db, key, keys.signing_id)["revoked_at"] is None:
            return key
    detail = "The key of receipts is revoked. Retry in a minute; if it is still revoked then, an operator must run scripts/admin rotate-keys."
    raise Environment(detail, retry_after=_RETRY_S)


def is_in_use(keys: KeySet, key_id: str) -> bool:
    """Return whether a key signs receipts now, or will as soon as its signing key has been in the file for half a minute."""
    ids = list(keys.secrets)
    if keys.signing_id is None:
        return False
    return any(derive(keys, signing_id).id == key_id for signing_id in ids[: ids.index(keys.signing_id) + 1])


def find(db: Db, key_id: str) -> bytes | None:
    """Return the secret of a key; None if there is no such key, or it was revoked.

    :raises StoreAway: when MongoDB does not respond.
    """
    if not _ID.match(key_id):
        return None
    with translate_errors():
        found = db.receipt_keys.find_one({"_id": key_id, "revoked_at": None}, {"key": 1})
    return None if found is None else bytes.fromhex(found["key"])


def list_keys(db: Db, key_id: str | None = None) -> Iterator[StoredKey]:
    """Yield all keys, the oldest first, or only the one with the id ``key_id``.

    :raises NotFound: when there is no key with this id.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        if key_id is not None and db.receipt_keys.find_one({"_id": key_id}, {"_id": 1}) is None:
            raise NotFound("There is no such receipt key.")
        for row in db.receipt_keys.find({} if key_id is None else {"_id": key_id}).sort([("created_at", 1), ("_id", 1)]):
            yield StoredKey(_key_of(row), row["signing_key"], row["created_at"], row["revoked_at"])


def revoke(db: Db, key_id: str) -> None:
    """Revoke a key: the receipts that it has signed do not verify any more. A second call changes nothing.

    :raises NotFound: when there is no such key.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        if not db.receipt_keys.update_one({"_id": key_id}, _revocation()).matched_count:
            raise NotFound("There is no such receipt key.")


def revoke_derived(db: Db, signing_keys: Mapping[str, bytes], dropped: Iterable[str]) -> None:
    """Revoke the keys that are derived from signing keys which somebody else may know, also if they have signed nothing yet.

    :param signing_keys: the secrets of the signing keys by their ids.
    :param dropped: the ids of those that were dropped.
    :raises StoreAway: when MongoDB does not respond.
    """
    derived = KeySet(signing_keys, None)
    with translate_errors():
        for signing_id in dropped:
            key = derive(derived, signing_id)
            _keep(db, key, signing_id)
            db.receipt_keys.update_one({"_id": key.id}, _revocation())


def derive(keys: KeySet, signing_id: str) -> ReceiptKey:
    """Return the key that is derived from one of the signing keys."""
    return _key(signing_id, bytes.fromhex(keys.derive(PURPOSE)[signing_id].decode()))


def _revocation() -> list[Document]:
    return [{"$set": {"revoked_at": {"$ifNull": ["$revoked_at", "$$NOW"]}}}]


def _obtain_generated(db: Db) -> ReceiptKey:
    found = _majority(db).find_one({"signing_key": None, "revoked_at": None}, sort=[("created_at", 1), ("_id", 1)])
    if found is not None:
        return _key_of(found)
    key = _key(_WITHOUT_SIGNING_KEY, secrets.token_bytes(32))
    _keep(db, key, None)  # two processes may make one each, and both verify
    return key


def _keep(db: Db, key: ReceiptKey, signing_id: str | None) -> Document:
    """Store a key unless it is stored already, and return the stored document."""
    query = {"_id": key.id}
    found = _majority(db).find_one(query)  # what a majority has cannot be rolled back
    if found is not None:
        return found
    made: Document = {"_id": key.id, "key": key.secret.hex(), "signing_key": signing_id, "created_at": utc_now(), "revoked_at": None}
    try:
        db.receipt_keys.insert_one(made)
    except DuplicateKeyError:
        # This write follows the insert of the other process, so when a majority has confirmed it, it has the insert, too.
        db.receipt_keys.update_one(query, {"$set": {"key": key.secret.hex()}})
        return db.receipt_keys.find_one(query) or made
    return made


def _majority(db: Db) -> Collection[Document]:
    return majority(db, "receipt_keys")


def _key(prefix: str, secret: bytes) -> ReceiptKey:
    return ReceiptKey(f"{prefix}-{hashlib.sha256(secret).hexdigest()[:16]}", secret)


def _key_of(row: Document) -> ReceiptKey:
    return ReceiptKey(row["_id"], bytes.fromhex(row["key"]))
