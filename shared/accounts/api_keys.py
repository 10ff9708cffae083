"""API keys for scripts: create, find, list and delete them. ``shared.accounts.key_format`` describes their text."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pymongo.write_concern import WriteConcern

from shared.accounts import key_format
from shared.accounts.permissions import ROLES, Rights, Role
from shared.allowed_stores import stores_from_list, stores_to_list
from shared.clock import utc_now
from shared.errors import Conflict, NotFound
from shared.storage.mongo import Db, Document, translate_errors

MAX_KEYS: Final = 1000
"""Maximum number of keys of one user. Only administrators can make keys without a user, and their number has no limit."""
_DEADLINE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to create. ``role`` is None if the key gets single scopes. ``expires_at`` is naive UTC."""

    name: str
    role: Role | None
    rights: Rights
    user_id: str | None
    created_by: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored, with its own rights, which those of its user limit further. Times are naive UTC."""

    id: str
    name: str
    digest: str
    user_id: str | None
    role: Role | None
    rights: Rights
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None

    @property
    def has_expired(self) -> bool:
        """Whether the key has expired."""
        return self.expires_at is not None and self.expires_at <= utc_now()


def create(db: Db, new: NewKey) -> tuple[ApiKey, str]:
    """Create a key.

    :returns: the key as stored, and its text, which is not stored and cannot be shown again.
    :raises Conflict: when there are too many keys (``too_many_keys``).
    """
    made = key_format.generate()
    document: Document = {
        "_id": made.id,
        "name": new.name,
        "digest": made.digest,
        "user": new.user_id,
        "role": new.role,
        "scopes": [] if new.role else sorted(new.rights.scopes),
        "stores": stores_to_list(new.rights.stores),
        "created_at": utc_now(),
        "created_by": new.created_by,
        "expires_at": new.expires_at,
        "last_used_at": None,
    }
    with translate_errors():
        if new.user_id is not None and db.api_keys.count_documents({"user": new.user_id}, limit=MAX_KEYS) >= MAX_KEYS:
            raise Conflict(f"A user can have at most {MAX_KEYS} keys; delete those that are not used.", code="too_many_keys")
        db.api_keys.insert_one(document)
    return _read(document), made.text


def find(db: Db, key_id: str) -> ApiKey | None:
    """Return the key with an id; None if there is none, or if it has expired."""
    with translate_errors():
        document = db.api_keys.find_one({"_id": key_id})
    found = _read(document) if document else None
    return None if found is None or found.has_expired else found


def list_page(db: Db, query: Document, after: str | None, limit: int) -> list[ApiKey]:
    """Return up to ``limit`` of the keys that match a query, in the order of their ids.

    :param after: id of the last key of the page before; None for the first page.
    """
    if after is not None:
        query = query | {"_id": {"$gt": after}}
    with translate_errors():
        return [_read(row) for row in db.api_keys.find(query).sort("_id", 1).limit(limit).max_time_ms(_DEADLINE_MS)]


def delete(db: Db, key_id: str, query: Document) -> ApiKey:
    """Delete the key with an id. It is refused from then on, in other processes after at most five seconds.

    :param query: a condition that the key must match.
    :raises NotFound: when there is no such key.
    """
    with translate_errors():
        document = db.api_keys.find_one_and_delete(query | {"_id": key_id})
    if document is None:
        raise NotFound("There is no API key with this id.")
    return _read(document)


def set_last_used(db: Db, key_id: str, interval_s: float) -> None:
    """Store that a key is used now, unless this was stored less than ``interval_s`` seconds ago."""
    before = {"$expr": {"$lt": ["$last_used_at", {"$subtract": ["$$NOW", int(interval_s * 1000)]}]}}
    with translate_errors():
        keys = db.get_collection("api_keys", write_concern=WriteConcern(w=1))
        keys.update_one({"_id": key_id} | before, [{"$set": {"last_used_at": "$$NOW"}}])


def _read(document: Document) -> ApiKey:
    role: Role | None = document["role"]
    scopes = ROLES[role] if role else frozenset(document["scopes"])
    return ApiKey(
        id=document["_id"],
        name=document["name"],
        digest=document["digest"],
        user_id=document["user"],
        role=role,
        rights=Rights(scopes, stores_from_list(document["stores"])),
        created_at=document["created_at"],
        created_by=document["created_by"],
        expires_at=document["expires_at"],
        last_used_at=document["last_used_at"],
    )
