"""Users, keys and sessions for tests, made in the database without HTTP."""

import json
from collections.abc import Iterable
from typing import Final

from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from shared import settings
from shared.accounts import api_keys, sessions, users
from shared.accounts.api_keys import NewKey
from shared.accounts.permissions import ROLES, Rights, Role, Scope
from shared.accounts.tokens import TokenSigner
from shared.accounts.users import NewUser, User
from shared.allowed_stores import stores_from_list
from shared.storage.mongo import Db

PASSWORD: Final = "correct horse battery staple"
_HASH: Final = PasswordHasher.from_parameters(CHEAPEST).hash(PASSWORD)
SIGNING_KEYS: Final = {"test": "0123456789abcdefghijklmnopqrstuvwxyz"}
ACCESS: Final = settings.Access(access="on", signing_keys=json.dumps(SIGNING_KEYS))
"""Settings with which requests need credentials."""
SIGNER: Final = TokenSigner(ACCESS.parse_signing_keys())
"""Signs and reads the tokens of a service with these settings."""


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


def bearer(credentials: str) -> dict[str, str]:
    """Return the headers of a request with these credentials."""
    return {"Authorization": f"Bearer {credentials}"}
