"""Invitations, and links that set a new password. Each can be used once, and expires.

A link stops working if whoever made it loses the rights that it gives.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pymongo.client_session import ClientSession

from shared.accounts import principals, sessions, users
from shared.accounts.permissions import ROLES, Rights, Role
from shared.accounts.users import NewUser, User
from shared.allowed_stores import stores_from_list, stores_to_list
from shared.clock import utc_now
from shared.errors import Gone
from shared.ids import new_id
from shared.storage.mongo import Db, Document, run_transaction, translate_errors

Kind = Literal["invitation", "password_reset"]
LIFETIMES: Final[dict[Kind, timedelta]] = {"invitation": timedelta(days=7), "password_reset": timedelta(hours=24)}
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_TOKEN_BYTES: Final = 32
_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Link:
    """A link as stored. An invitation has ``role`` and ``stores``; a link for a new password has ``user_id``."""

    id: str
    kind: Kind
    user_id: str | None
    role: Role | None
    rights: Rights
    created_at: datetime
    created_by: str
    expires_at: datetime


def invite(db: Db, role: Role, rights: Rights, created_by: str) -> tuple[Link, str]:
    """Create an invitation. Return it and its token, which is not stored and cannot be shown again."""
    return _create(db, "invitation", created_by, role=role, stores=stores_to_list(rights.stores))


def offer_new_password(db: Db, user: User, created_by: str) -> tuple[Link, str]:
    """Create a link that sets a new password of a user; see ``invite``. Earlier links of this kind stop working."""
    with translate_errors():
        db.one_time_links.delete_many({"user": user.id, "kind": "password_reset"})
    return _create(db, "password_reset", created_by, user=user.id)


def list_invitations(db: Db, by: Rights, after: str | None, limit: int) -> list[Link]:
    """Return up to ``limit`` open invitations whose stores are among those of ``by``, the newest first.

    :param after: id of the last invitation of the page before; None for the first page.
    """
    query = users.covered_query(by) | {"kind": "invitation", "expires_at": {"$gt": utc_now()}}
    if after is not None:
        query["_id"] = {"$lt": after}
    with translate_errors():
        rows = db.one_time_links.find(query).sort("_id", -1).limit(limit).max_time_ms(int(_DEADLINE_S * 1000))
        return [_read(row) for row in rows]


def accept_invitation(db: Db, token: str, make_user: Callable[[Role, Rights], NewUser]) -> User:
    """Create the user that an invitation is for.

    :param make_user: called with the role and the rights of the invitation; it returns the user to create.
    :raises Gone: when the invitation is unknown, expired or used (``bad_link``).
    :raises AlreadyExists: when the user name or the email address is taken. The invitation can still be used.
    """
    link = find(db, "invitation", token)
    assert link.role is not None  # noqa: S101 -- every invitation has a role
    new = make_user(link.role, link.rights)

    def write(session: ClientSession) -> User:
        _use(db, link, session)
        return users.insert(db, new, session)

    return run_transaction(db, write, _DEADLINE_S)


def set_new_password(db: Db, token: str, password_hash: str) -> User:
    """Set the password of the user that a link is for, and end all sessions of this user.

    :raises Gone: when the link is unknown, expired or used (``bad_link``).
    """
    link = find(db, "password_reset", token)
    user_id = link.user_id or ""

    def write(session: ClientSession) -> User:
        _use(db, link, session)
        user = users.read(db, user_id, session)
        if user is None:
            raise _bad_link()
        users.set_password(db, user, password_hash, session)
        sessions.delete_all(db, user_id, session)
        return user

    return run_transaction(db, write, _DEADLINE_S)


def find(db: Db, kind: Kind, token: str) -> Link:
    """Return the link with a token, without using it.

    :raises Gone: when there is no such link, or whoever made it has lost the rights that it gives (``bad_link``).
    """
    document = None
    if _TOKEN.match(token):
        with translate_errors():
            document = db.one_time_links.find_one({"digest": _digest(token), "kind": kind, "expires_at": {"$gt": utc_now()}})
    if document is None:
        raise _bad_link()
    link = _read(document)
    given = link.rights
    if link.user_id is not None:
        user = users.find_by_id(db, link.user_id)
        if user is None:
            raise _bad_link()
        given = user.rights
    maker = principals.rights_of(db, link.created_by)
    if maker is None or not maker.covers(given):
        raise _bad_link()
    return link


def _create(db: Db, kind: Kind, created_by: str, **fields: Any) -> tuple[Link, str]:
    token, now = secrets.token_urlsafe(_TOKEN_BYTES), utc_now()
    document: Document = {
        "_id": new_id(),
        "digest": _digest(token),
        "kind": kind,
        "user": None,
        "role": None,
        "stores": [],
        "created_at": now,
        "created_by": created_by,
        "expires_at": now + LIFETIMES[kind],
    } | fields
    with translate_errors():
        db.one_time_links.insert_one(document)
    return _read(document), token


def _use(db: Db, link: Link, session: ClientSession) -> None:
    if not db.one_time_links.delete_one({"_id": link.id}, session=session).deleted_count:
        raise _bad_link()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _bad_link() -> Gone:
    return Gone("This link is unknown, expired, or has been used; ask for a new one.", code="bad_link")


def _read(document: Document) -> Link:
    role: Role | None = document["role"]
    return Link(
        id=document["_id"],
        kind=document["kind"],
        user_id=document["user"],
        role=role,
        rights=Rights(ROLES[role] if role else frozenset(), stores_from_list(document["stores"])),
        created_at=document["created_at"],
        created_by=document["created_by"],
        expires_at=document["expires_at"],
    )
