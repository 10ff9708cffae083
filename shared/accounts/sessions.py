"""Sessions: what a person has from signing in until signing out, and the tokens that belong to it.

The session of a program is a family of refresh tokens, each of which can be used once. The use of a token makes the next one.
If a used token comes back, it was copied, and nobody knows who has the copy, so the session ends. The session of a browser
has a single token, which is in a cookie.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from pymongo.client_session import ClientSession

from shared.accounts import users
from shared.accounts.tokens import TokenSigner
from shared.accounts.users import User
from shared.clock import utc_now
from shared.errors import Unauthorized
from shared.ids import new_id
from shared.storage.mongo import Db, Document, run_transaction, translate_errors

LIFETIME: Final = timedelta(days=30)
"""Time after which a person must sign in again (NIST SP 800-63B-4, 2.1.3)."""
_DEADLINE_S: Final = 10.0
_MAX_SESSIONS: Final = 100
"""Maximum number of sessions of one user. The oldest ones end when there are more."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a session. ``expires_in`` is the lifetime of the access token in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class CookieToken:
    """The token of a browser's session, and the number of seconds until it expires."""

    token: str
    expires_in: int


class TokenReused(Unauthorized):
    """A refresh token was used twice, so its session has been ended. ``user_id`` is the user of the session."""

    def __init__(self, user_id: str) -> None:
        super().__init__("This refresh token has already been used, so its session has ended; sign in again.")
        self.user_id = user_id


def start(db: Db, signer: TokenSigner, user: User) -> Tokens:
    """Start a session of a program, and return its first tokens.

    If the password has been changed, or the user has been disabled, since ``user`` was read, the tokens are refused.

    :raises Environment: when there is no key to sign tokens (``signing_keys_missing``).
    :raises StoreAway: when MongoDB does not respond.
    """
    session_id, now = new_id(), utc_now()
    expires_at = now + LIFETIME
    tokens = _issue(signer, user.id, session_id, 0, expires_at)
    _store(db, user, session_id, now, expires_at)
    return tokens


def start_in_browser(db: Db, signer: TokenSigner, user: User) -> CookieToken:
    """Start a session of a browser, and return the token for its cookie. Otherwise, this is like ``start``.

    :raises Environment: when there is no key to sign tokens (``signing_keys_missing``).
    :raises StoreAway: when MongoDB does not respond.
    """
    session_id, now = new_id(), utc_now()
    expires_at = now + LIFETIME
    token = signer.issue_cookie(user.id, session_id, expires_at.replace(tzinfo=UTC).timestamp())
    _store(db, user, session_id, now, expires_at)
    return CookieToken(token, int(LIFETIME.total_seconds()))


def refresh(db: Db, signer: TokenSigner, refresh_token: str) -> tuple[str, Tokens]:
    """Use a refresh token, and return the id of its user and the next tokens.

    :raises Unauthorized: when the token is invalid or its session has ended.
    :raises TokenReused: when the token has been used before. The session has been ended.
    :raises StoreAway: when MongoDB does not respond.
    """
    claims = signer.read_refresh(refresh_token)
    session = {"_id": claims.session_id, "user": claims.user_id}
    current = session | {"generation": claims.generation, "expires_at": {"$gt": utc_now()}}
    with translate_errors():
        found = db.sessions.find_one_and_update(current, {"$inc": {"generation": 1}})
        if found is None:
            used = session | {"generation": {"$gt": claims.generation}}
            if db.sessions.delete_one(used).deleted_count:
                raise TokenReused(claims.user_id)
            raise _ended()
    if not _is_of(found, users.find_by_id(db, claims.user_id)):
        raise _ended()
    return claims.user_id, _issue(signer, claims.user_id, claims.session_id, claims.generation + 1, found["expires_at"])


def find_user(db: Db, session_id: str, user_id: str) -> User | None:
    """Return the user of a session; None if the session has ended or expired, or the user is disabled.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        found = db.sessions.find_one({"_id": session_id, "user": user_id, "expires_at": {"$gt": utc_now()}})
    user = None if found is None else users.find_by_id(db, user_id)
    return user if found is not None and _is_of(found, user) else None


def end(db: Db, session_id: str, user_id: str) -> None:
    """End a session of a user. Its tokens are refused from then on, in other processes after at most five seconds."""
    with translate_errors():
        db.sessions.delete_one({"_id": session_id, "user": user_id})


def end_all(db: Db, user_id: str) -> None:
    """End all sessions of a user."""
    with translate_errors():
        delete_all(db, user_id, None)


def delete_all(db: Db, user_id: str, session: ClientSession | None) -> None:
    """End all sessions of a user as a part of a transaction. Errors of the driver are not converted."""
    db.sessions.delete_many({"user": user_id}, session=session)


def change_password(db: Db, user: User, password_hash: str) -> User:
    """Set the password of a user and end all sessions of this user, in one transaction.

    :returns: the user after the change.
    :raises Unauthorized: when the password has been changed, or the user has been disabled, since ``user`` was read.
    :raises StoreAway: when MongoDB does not respond.
    """

    def write(session: ClientSession) -> bool:
        is_stored = users.set_password(db, user, password_hash, session)
        if is_stored:
            delete_all(db, user.id, session)
        return is_stored

    if not run_transaction(db, write, _DEADLINE_S):
        raise _ended()
    return replace(user, password_hash=password_hash, credentials_version=user.credentials_version + 1)


def _store(db: Db, user: User, session_id: str, now: datetime, expires_at: datetime) -> None:
    document = {
        "_id": session_id,
        "user": user.id,
        "generation": 0,
        "credentials_version": user.credentials_version,
        "created_at": now,
        "expires_at": expires_at,
    }
    with translate_errors():
        db.sessions.insert_one(document)
        too_many = db.sessions.find({"user": user.id}, {"_id": 1}).sort("created_at", -1).skip(_MAX_SESSIONS).limit(_MAX_SESSIONS)
        if old := [row["_id"] for row in too_many]:
            db.sessions.delete_many({"_id": {"$in": old}})


def _is_of(session: Document, user: User | None) -> bool:
    """Return whether a session is valid for a user: not disabled, and with the password with which the session began."""
    return user is not None and not user.disabled and session["credentials_version"] == user.credentials_version


def _ended() -> Unauthorized:
    return Unauthorized("This session has ended; sign in again.")


def _issue(signer: TokenSigner, user_id: str, session_id: str, generation: int, expires_at: datetime) -> Tokens:
    access_token, expires_in = signer.issue_access(user_id, session_id)
    refresh_token = signer.issue_refresh(user_id, session_id, generation, expires_at.replace(tzinfo=UTC).timestamp())
    return Tokens(access_token, refresh_token, expires_in)
