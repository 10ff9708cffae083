"""Users, keys and sessions for tests, made in the database without HTTP."""

import contextlib
import json
from collections.abc import Iterable
from typing import Final

from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from shared import settings
from shared.accounts import api_keys, sessions, users
from shared.accounts.api_keys import NewKey
from shared.accounts.csrf_tokens import CsrfTokens
from shared.accounts.permissions import ROLES, Rights, Role, Scope
from shared.accounts.signing_keys import open_signing_keys
from shared.accounts.tokens import TokenSigner
from shared.accounts.users import NewUser, User
from shared.allowed_stores import stores_from_list
from shared.errors import Unauthorized
from shared.storage.mongo import Db
from web.http.session_cookie import PLAIN_NAME

PASSWORD: Final = "correct horse battery staple"
_HASH: Final = PasswordHasher.from_parameters(CHEAPEST).hash(PASSWORD)
SIGNING_KEYS: Final = {"test": "0123456789abcdefghijklmnopqrstuvwxyz"}
ACCESS: Final = settings.Access(environment="development", access="on", signing_keys=json.dumps(SIGNING_KEYS))
"""Settings with which requests need credentials."""
SIGNER: Final = TokenSigner(open_signing_keys(ACCESS))
"""Signs and reads the tokens of a service with these settings."""
CSRF_TOKENS: Final = CsrfTokens(open_signing_keys(ACCESS))
"""Issues and checks the CSRF tokens of a service with these settings."""


def make_user(db: Db, username: str = "anna", role: Role = "viewer", stores: Iterable[str] = ("*",), email: str | None = None) -> User:
    """Create a user with the password ``PASSWORD``, whose hash is cheap to verify."""
    return users.create(db, NewUser(username, email, role, Rights(ROLES[role], stores_from_list(stores)), _HASH))


def make_key(
    db: Db, role: Role | None = "admin", stores: Iterable[str] = ("*",), scopes: Iterable[Scope] = (), user: User | None = None, name: str = "test"
) -> str:
    """Create an API key with a role or, if ``role`` is None, with ``scopes``, and return its text."""
    rights = Rights(ROLES[role] if role else frozenset(scopes), stores_from_list(stores))
    _, text = api_keys.create(db, NewKey(name, role, rights, None if user is None else user.id, "operator"))
    return text


def make_token(db: Db, user: User) -> str:
    """Start a session of a user, and return its access token."""
    return sessions.start(db, SIGNER, user).access_token


def make_cookie(db: Db, user: User) -> str:
    """Start a session of a browser of a user, and return the value of its cookie."""
    return sessions.start_in_browser(db, SIGNER, user).token


def by_cookie(value: str, *, with_csrf_token: bool = True) -> dict[str, str]:
    """Return the headers of a request with this session cookie and, if it is valid, a CSRF token of its session."""
    headers = {"Cookie": f"{PLAIN_NAME}={value}"}
    with contextlib.suppress(Unauthorized):
        if with_csrf_token:
            headers["X-CSRF-Token"] = CSRF_TOKENS.issue(SIGNER.read_cookie(value).session_id)
    return headers


def bearer(credentials: str) -> dict[str, str]:
    """Return the headers of a request with these credentials."""
    return {"Authorization": f"Bearer {credentials}"}
