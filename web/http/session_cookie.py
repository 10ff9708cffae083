"""The session cookie, with which browsers authenticate requests of this service's own pages.

Under HTTPS, its name has the prefix ``__Host-``, so that browsers accept it only over HTTPS and only from this host. The name
without the prefix, which other hosts of the domain could set, counts under plain HTTP alone.
"""

from typing import Final

from flask import Flask, Response, g, request

from shared.errors import Unauthorized
from web.http.responses import prefers_html

SECURE_NAME: Final = "__Host-shelfsight_session"
PLAIN_NAME: Final = "shelfsight_session"
_MAX_LENGTH: Final = 4096


def install(app: Flask) -> None:
    """Delete a session cookie that was refused, with the response that opens a page.

    The response to a request of a script, which can arrive late, would also delete the newer cookie of a person who has signed
    in again in the meantime.
    """

    def clear_refused(response: Response) -> Response:
        if g.get("is_cookie_refused") and _opens_page():
            clear(response)
        return response

    app.after_request(clear_refused)


def is_sent() -> bool:
    """Return whether the current request has a session cookie, valid or not."""
    return _name() in request.cookies


def read() -> str:
    """Return the value of the session cookie of the current request.

    :raises Unauthorized: when the cookie is too long, or there is not exactly one of its name. Of several ones, the browser
        does not say who has set them.
    """
    values = request.cookies.getlist(_name())
    if len(values) != 1 or len(values[0]) > _MAX_LENGTH:
        raise Unauthorized("The session cookie is invalid; sign in again. If this happens again, delete the cookies of this site.")
    return values[0]


def refuse() -> None:
    """Note that the session cookie of the current request is invalid."""
    g.is_cookie_refused = True


def put(response: Response, value: str, max_age_s: int) -> None:
    """Set the session cookie for ``max_age_s`` seconds.

    Scripts cannot read it. Of the requests that pages of other sites cause, only links that a person follows have it.
    """
    response.set_cookie(_name(), value, max_age=max_age_s, secure=request.is_secure, httponly=True, samesite="Lax", path="/")


def clear(response: Response) -> None:
    """Delete the session cookie."""
    response.delete_cookie(_name(), secure=request.is_secure, httponly=True, samesite="Lax", path="/")


def _opens_page() -> bool:
    """Return whether a browser is about to show the response as a page. Over plain HTTP, browsers say so only by ``Accept``."""
    is_navigation = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    return is_navigation and request.method in {"GET", "HEAD"} and prefers_html()


def _name() -> str:
    return SECURE_NAME if request.is_secure else PLAIN_NAME
