"""Responses with secrets, which no cache may store."""

from typing import Any

from flask import Response

from shared.accounts.sessions import CookieToken, Tokens
from web.http import responses, session_cookie


def secret_response(body: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON response with a secret, which no cache may store."""
    response = responses.json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response


def tokens(issued: Tokens) -> Response:
    """Return the response with the tokens of a session (RFC 6749, 5.1)."""
    return secret_response(
        {
            "access_token": issued.access_token,
            "refresh_token": issued.refresh_token,
            "token_type": "bearer",
            "expires_in": issued.expires_in,
        }
    )


def session_cookie_response(issued: CookieToken) -> Response:
    """Return the response without a body that sets the session cookie of a browser."""
    response = Response(status=204, headers={"Cache-Control": "no-store"})
    session_cookie.put(response, issued.token, issued.expires_in)
    return response
