"""The people who sign in with a user name and a password: create, find, list and change them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from shared.accounts.permissions import ROLES, Rights, Role
from shared.allowed_stores import stores_from_list, stores_to_list, within_query
from shared.clock import utc_now
from shared.errors import AlreadyExists, Conflict, Forbidden, NotFound
from shared.ids import new_id
from shared.storage.mongo import Db, Document, run_transaction, translate_errors

USERNAME_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
EMAIL_PATTERN: Final = r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}"
"""A rough pattern. Whether an address exists can only be found out by sending a mail."""
_USERNAME: Final = re.compile(USERNAME_PATTERN)
_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class User:
    """A user as stored. Times are naive UTC. ``password_hash`` is None until a password has been set.

    ``credentials_version`` increases when the password is changed and when the user is disabled. Only sessions that began
    with the present version are valid.
    """

    id: str
    username: str
    email: str | None
    role: Role
    rights: Rights
    disabled: bool
    created_at: datetime
    password_hash: str | None
    credentials_version: int


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to create. ``rights.scopes`` are those of ``role``."""

    username: str
    email: str | None
    role: Role
    rights: Rights
    password_hash: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What to change in a user. A field that is None stays as it is. ``stores`` is a list as it is stored."""

    role: Role | None = None
    stores: list[str] | None = None
    disabled: bool | None = None


def create(db: Db, new: NewUser) -> User:
    """Create a user.

    :raises AlreadyExists: when the user name or the email address is taken. Letters of either case are the same.
    """
    with translate_errors():
        return insert(db, new, None)


def insert(db: Db, new: NewUser, session: ClientSession | None) -> User:
    """Create a user as a part of a transaction; see ``create``. Errors of the driver are not converted."""
    now = utc_now()
    document: Document = {
        "_id": new_id(),
        "username": new.username,
        "username_key": new.username.lower(),
        "email": new.email,
        "email_key": new.email and new.email.lower(),
        "password_hash": new.password_hash,
        "role": new.role,
        "stores": stores_to_list(new.rights.stores),
        "disabled": False,
        "created_at": now,
        "password_changed_at": now if new.password_hash else None,
        "credentials_version": 0,
    }
    try:
        db.users.insert_one(document, session=session)
    except DuplicateKeyError:
        raise AlreadyExists("This user name or this email address is already taken; choose another one.") from None
    return _read(document)


def find(db: Db, name: str) -> User | None:
    """Return the user with a user name or, if ``name`` contains ``@``, with an email address; None if there is none."""
    with translate_errors():
        found = db.users.find_one({"email_key" if "@" in name else "username_key": name.lower()})
    return _read(found) if found else None


def get(db: Db, username: str) -> User:
    """Return the user with a user name.

    :raises NotFound: when there is none.
    """
    found = find(db, username) if _USERNAME.fullmatch(username) else None
    if found is None:
        raise _unknown()
    return found


def find_by_id(db: Db, user_id: str) -> User | None:
    """Return the user with an id, or None if there is none."""
    with translate_errors():
        return read(db, user_id, None)


def read(db: Db, user_id: str, session: ClientSession | None) -> User | None:
    """Return the user with an id as a part of a transaction. Errors of the driver are not converted."""
    found = db.users.find_one({"_id": user_id}, session=session)
    return _read(found) if found else None


def find_names(db: Db, user_ids: Iterable[str]) -> dict[str, str]:
    """Return the user names of the users with these ids, by id."""
    with translate_errors():
        return {row["_id"]: row["username"] for row in db.users.find({"_id": {"$in": sorted(user_ids)}}, {"username": 1})}


def list_page(db: Db, by: Rights, after: str | None, limit: int) -> list[User]:
    """Return up to ``limit`` users whose stores are among those of ``by``, the newest first.

    :param after: id of the last user of the page before; None for the first page.
    """
    query: Document = covered_query(by)
    if after is not None:
        query["_id"] = {"$lt": after}
    with translate_errors():
        return [_read(row) for row in db.users.find(query).sort("_id", -1).limit(limit).max_time_ms(int(_DEADLINE_S * 1000))]


def has_administrator(db: Db) -> bool:
    """Return whether there is an administrator who is not disabled."""
    with translate_errors():
        return db.users.find_one({"role": "admin", "disabled": False}, {"_id": 1}, max_time_ms=int(_DEADLINE_S * 1000)) is not None


def change(db: Db, username: str, wanted: Change, by: Rights) -> tuple[User, User]:
    """Change the role, the stores or the state of a user. If the user is disabled, all sessions of the user end.

    The last administrator who is not disabled, and has all stores if the changed user has, stays.

    :param by: the rights of who makes the change. They must cover what the user has before and after it.
    :returns: the user before and after the change.
    :raises NotFound: when there is no such user.
    :raises Forbidden: when ``by`` does not cover the rights (``exceeds_rights``).
    :raises Conflict: when no administrator would remain (``last_admin``).
    """
    user_id = get(db, username).id

    def write(session: ClientSession) -> tuple[User, User]:
        before = read(db, user_id, session)
        if before is None:
            raise _unknown()
        role = wanted.role or before.role
        stores = before.rights.stores if wanted.stores is None else stores_from_list(wanted.stores)
        after = replace(
            before,
            role=role,
            rights=Rights(ROLES[role], stores),
            disabled=before.disabled if wanted.disabled is None else wanted.disabled,
        )
        require_cover(by, before.rights, after.rights)
        if _is_active_admin(before) and not _is_active_admin(after, like=before):
            _require_other_admin(db, before, session)
        fields = {"role": after.role, "stores": stores_to_list(after.rights.stores), "disabled": after.disabled}
        update: Document = {"$set": fields}
        if after.disabled:
            update["$inc"] = {"credentials_version": 1}
            db.sessions.delete_many({"user": user_id}, session=session)
        db.users.update_one({"_id": user_id}, update, session=session)
        return before, after

    return run_transaction(db, write, _DEADLINE_S)


def describe_change(before: User, after: User) -> dict[str, str | bool | list[str]]:
    """Return the old and the new value of each field that ``change`` has changed, for the security log."""
    old, new = _describe(before), _describe(after)
    changed = [name for name in new if old[name] != new[name]]
    changes = {f"old_{name}": old[name] for name in changed} | {f"new_{name}": new[name] for name in changed}
    return {"username": after.username} | changes


def set_password(db: Db, user: User, password_hash: str, session: ClientSession) -> bool:
    """Store the hash of a new password as a part of a transaction. Errors of the driver are not converted.

    :returns: False if the password has been changed, or the user has been disabled, since ``user`` was read. Then nothing
        is stored.
    """
    change = {"password_hash": password_hash, "password_changed_at": utc_now()}
    present = {"_id": user.id, "credentials_version": user.credentials_version}
    update = {"$set": change, "$inc": {"credentials_version": 1}}
    return db.users.update_one(present, update, session=session).matched_count > 0


def replace_hash(db: Db, user_id: str, old: str, new: str) -> None:
    """Store another hash of the same password, unless the password has been changed in the meantime."""
    with translate_errors():
        db.users.update_one({"_id": user_id, "password_hash": old}, {"$set": {"password_hash": new}})


def require_cover(by: Rights, *others: Rights) -> None:
    """Refuse a change if it concerns rights that ``by`` does not include.

    :raises Forbidden: when ``by`` does not cover one of ``others`` (``exceeds_rights``).
    """
    if not all(by.covers(other) for other in others):
        raise Forbidden(
            "This concerns more scopes or stores than your credentials have; ask an administrator who has them.",
            code="exceeds_rights",
        )


def covered_query(by: Rights) -> dict[str, Any]:
    """Return the query for the users or keys whose stores are among those of ``by``."""
    return within_query(by.stores)


def _describe(user: User) -> dict[str, str | bool | list[str]]:
    return {"role": user.role, "stores": stores_to_list(user.rights.stores), "disabled": user.disabled}


def _is_active_admin(user: User, like: User | None = None) -> bool:
    """Return whether a user is an administrator who can sign in.

    :param like: if given, the user must also have all stores if ``like`` has.
    """
    has_stores = like is None or like.rights.stores is not None or user.rights.stores is None
    return user.role == "admin" and not user.disabled and has_stores


def _require_other_admin(db: Db, user: User, session: ClientSession) -> None:
    """Refuse the transaction if no other active administrator remains.

    The transaction writes the documents of the others. Two administrators that remove each other at the same time
    therefore conflict, and the second one is refused when its transaction is repeated.
    """
    others: Document = {"_id": {"$ne": user.id}, "role": "admin", "disabled": False}
    if user.rights.stores is None:
        others["stores"] = stores_to_list(None)
    if not db.users.update_many(others, {"$inc": {"touched": 1}}, session=session).matched_count:
        raise Conflict("This is the last administrator; make another one first.", code="last_admin")


def _unknown() -> NotFound:
    return NotFound("There is no user with this name.")


def _read(document: Document) -> User:
    role: Role = document["role"]
    return User(
        id=document["_id"],
        username=document["username"],
        email=document["email"],
        role=role,
        rights=Rights(ROLES[role], stores_from_list(document["stores"])),
        disabled=document["disabled"],
        created_at=document["created_at"],
        password_hash=document["password_hash"],
        credentials_version=document["credentials_version"],
    )
