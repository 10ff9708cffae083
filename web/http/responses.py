"""What every JSON or HTML response needs: the JSON encoding, the base of absolute links, and the choice between a page and JSON."""

from typing import Any, Final

import orjson
from flask import Response, request

JSON_OPTIONS: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
"""Times are naive UTC, as MongoDB returns them; they are written with a ``Z``."""


def json_response(body: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(body, option=JSON_OPTIONS), status, mimetype="application/json")


def base_url(public_url: str) -> str:
    """Return the base of absolute links, without a slash at its end: ``PUBLIC_URL`` if set, else scheme and host of this request."""
    return public_url.rstrip("/") if public_url else f"{request.scheme}://{request.host}"


def prefers_html() -> bool:
    """Return whether ``Accept`` prefers HTML to JSON. If it prefers neither, the answer is yes at ``/`` and no elsewhere."""
    html, json = "text/html", "application/json"
    first, second = (html, json) if request.path == "/" else (json, html)
    return request.accept_mimetypes.best_match([first, second], first) == html
