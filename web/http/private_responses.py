"""Keep what depends on who asks out of caches that others read.

While access is on, every response of a route that is not public depends on the credentials, and every page shows who has signed
in. Such a response is not stored, except by the browser for files, which say so themselves. A response to a signed URL
depends on the URL alone.
"""

from flask import Flask, Response, g

from shared.accounts.permissions import SIGNED
from web.http import authentication


def install(app: Flask, *, is_on: bool) -> None:
    """Add ``Cache-Control`` and ``Vary`` to responses.

    Call this function before the ``install`` functions that convert responses to pages or remove their media type. Flask
    calls ``after_request`` functions in the reverse order of their registration.

    :param is_on: whether requests need credentials. If not, all requests get the same responses.
    """
    if is_on:
        app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    is_page = response.mimetype == "text/html"
    if is_page or (authentication.is_protected() and g.get("principal") is not SIGNED):
        response.vary.update(("Authorization", "Cookie"))
        if is_page or "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
    if authentication.cookie_principal() is not None:
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"  # other origins of the same site send the cookie, too
    return response
