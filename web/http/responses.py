"""Functions for JSON and HTML responses: encode JSON, return the base of absolute links, and choose HTML or JSON."""

from typing import Any

import orjson
from flask import Response, request

from web.http.json_options import JSON_OPTIONS


def json_response(body: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(body, option=JSON_OPTIONS), status, mimetype="application/json")


def base_url(public_url: str) -> str:
    """Return the base of absolute links, without a slash at the end.

    The base is ``public_url`` if it is set, and otherwise the scheme and the host of the current request.
    """
    return public_url.rstrip("/") if public_url else f"{request.scheme}://{request.host}"


def prefers_html() -> bool:
    """Return whether the ``Accept`` header prefers HTML to JSON. The media type of problem documents counts as JSON.

    If the header prefers neither of them, return True for the path ``/`` and False for every other path.
    """
    html, json = ["text/html"], ["application/json", "application/problem+json"]
    offered = html + json if request.path == "/" else json + html
    return request.accept_mimetypes.best_match(offered, offered[0]) == "text/html"
