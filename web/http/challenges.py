"""The ``WWW-Authenticate`` header of responses that refuse credentials (RFC 6750, 3)."""

from typing import Final

from flask import g

from shared.errors import ShelfsightError

_SCHEME: Final = "Bearer"


def note_bearer_token() -> None:
    """Note that the current request has a bearer token, an access token or an API key, valid or not."""
    g.has_bearer_token = True


def challenge(error: ShelfsightError) -> str | None:
    """Return the header for the response to an error; None if the response has no such header.

    Only a client that has sent a bearer token is told that it is invalid. Others learn which scheme they can use.
    """
    if error.status == 401:
        return f'{_SCHEME} error="invalid_token"' if g.get("has_bearer_token") else _SCHEME
    if error.code == "missing_scope":
        return f'{_SCHEME} error="insufficient_scope", scope="{error.extra["scope"]}"'
    return None
