"""Finds the principal of a request from its credentials: an access token, an API key, or the token in the session cookie.

What MongoDB knows of a session or a key is kept for a few seconds, so that most requests need no read. A change of rights
therefore takes effect in every process within five seconds.
"""

import hmac
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from cachetools import LRUCache

from shared.accounts import api_keys, key_format, principals, sessions
from shared.accounts.permissions import Principal
from shared.accounts.tokens import SessionClaims, TokenSigner
from shared.clock import utc_now
from shared.errors import Unauthorized
from shared.storage.mongo import Db, deadline

MAX_AGE_S: Final = 4.0
"""Seconds for which a session or a key is not read again. It counts from the beginning of the read."""
_MAX_ENTRIES: Final = 10_000
_MAX_REFUSED: Final = 1000
"""Number of unknown sessions and keys that are remembered. They are apart, because others can invent any number of keys."""


class _Entry(NamedTuple):
    """What was read for a session or a key. ``digest`` is that of the key, and ``principal`` is None if there is none."""

    digest: str
    principal: Principal | None
    valid_until: float


class Authenticator:
    """Finds principals. Thread-safe.

    :param read_deadline_s: maximum seconds for what must be read for one request, also while MongoDB is frozen.
    """

    def __init__(self, db: Db, signer: TokenSigner, read_deadline_s: float = 5.0) -> None:
        self._db, self._signer, self._read_deadline_s = db, signer, read_deadline_s
        self._entries: LRUCache[str, _Entry] = LRUCache(_MAX_ENTRIES)
        self._refused: LRUCache[str, _Entry] = LRUCache(_MAX_REFUSED)
        self._lock = threading.Lock()

    def authenticate(self, credentials: str) -> Principal:
        """Return the principal that an access token or an API key belongs to.

        :raises Unauthorized: when the credentials are invalid, or the session, the key or the user no longer exists.
        :raises StoreAway: when MongoDB does not respond.
        """
        if credentials.startswith(key_format.PREFIX):
            return self._find_by_key(credentials)
        return self._find_by_session(self._signer.read_access(credentials))

    def authenticate_cookie(self, token: str) -> Principal:
        """Return the principal that the token in a session cookie belongs to.

        :raises Unauthorized: when the token is invalid, or the session or the user no longer exists.
        :raises StoreAway: when MongoDB does not respond.
        """
        return self._find_by_session(self._signer.read_cookie(token))

    def _find_by_session(self, claims: SessionClaims) -> Principal:
        def read() -> tuple[str, Principal | None]:
            return "", self._read_session(claims.session_id, claims.user_id)

        entry = self._entry(f"{claims.user_id}/{claims.session_id}", read)
        if entry.principal is None:
            raise Unauthorized("This session has ended; sign in again.")
        return entry.principal

    def _find_by_key(self, text: str) -> Principal:
        parsed = key_format.parse(text)
        if parsed is None:
            raise _bad_key()

        def read() -> tuple[str, Principal | None]:
            key = api_keys.find(self._db, parsed.id)
            return ("", None) if key is None else (key.digest, principals.with_owner(self._db, key))

        entry = self._entry(parsed.id, read)
        principal = entry.principal
        if principal is None or not hmac.compare_digest(entry.digest, parsed.digest):
            raise _bad_key()
        assert principal.key is not None  # noqa: S101 -- it was made from a key
        if principal.key.expires_at is not None and principal.key.expires_at <= utc_now():
            raise _bad_key()
        return principal

    def _read_session(self, session_id: str, user_id: str) -> Principal | None:
        user = sessions.find_user(self._db, session_id, user_id)
        return None if user is None else principals.from_user(user, session_id)

    def _entry(self, name: str, read: Callable[[], tuple[str, Principal | None]]) -> _Entry:
        began = time.monotonic()
        with self._lock:
            entry = self._entries.get(name) or self._refused.get(name)
        if entry is None or began >= entry.valid_until:
            with deadline(self._read_deadline_s):
                entry = _Entry(*read(), began + MAX_AGE_S)
            with self._lock:
                self._entries.pop(name, None)
                self._refused.pop(name, None)
                (self._refused if entry.principal is None else self._entries)[name] = entry
        return entry


def _bad_key() -> Unauthorized:
    return Unauthorized("This API key is invalid, expired or deleted.")
