"""Convert users, keys, invitations and principals to the form that the API returns."""

from typing import Any

from shared.accounts.api_keys import ApiKey
from shared.accounts.key_format import display_prefix
from shared.accounts.one_time_links import Link
from shared.accounts.permissions import SCOPES, Principal, Rights
from shared.accounts.users import User
from shared.allowed_stores import stores_to_list

SIGN_UP_PATH = "/signup"
RESET_PATH = "/reset_password"


def principal(found: Principal) -> dict[str, Any]:
    """Return the members of ``GET /me``."""
    key = found.key and {"id": found.key.id, "name": found.key.name, "expires_at": found.key.expires_at}
    return {"username": found.username, "role": found.role, **_rights(found.rights), "key": key}


def user(found: User) -> dict[str, Any]:
    """Return the public members of a user."""
    return {
        "username": found.username,
        "email": found.email,
        "role": found.role,
        **_rights(found.rights),
        "disabled": found.disabled,
        "created_at": found.created_at,
    }


def api_key(found: ApiKey, username: str | None) -> dict[str, Any]:
    """Return the public members of an API key. The key itself is not among them."""
    return {
        "id": found.id,
        "prefix": display_prefix(found.id),
        "name": found.name,
        "username": username,
        "role": found.role,
        **_rights(found.rights),
        "created_at": found.created_at,
        "created_by": found.created_by,
        "expires_at": found.expires_at,
        "last_used_at": found.last_used_at,
    }


def invitation(found: Link) -> dict[str, Any]:
    """Return the public members of an invitation. Its token is not among them."""
    return {
        "id": found.id,
        "role": found.role,
        "stores": stores_to_list(found.rights.stores),
        "created_at": found.created_at,
        "expires_at": found.expires_at,
    }


def one_time_link(base: str, path: str, name: str, token: str) -> dict[str, str]:
    """Return the members of an answer that shows a one-time link.

    The token is in the fragment of the URL, which browsers do not send, so it appears in no log of a server.

    :param base: the beginning of the URL, without a slash at the end.
    """
    return {"url": f"{base}{path}#{name}={token}", "token": token}


def _rights(rights: Rights) -> dict[str, Any]:
    return {"scopes": [scope for scope in SCOPES if scope in rights.scopes], "stores": stores_to_list(rights.stores)}
