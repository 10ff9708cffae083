"""The id of each request: taken from ``X-Request-ID`` or generated, kept in ``g.request_id``, and returned."""

import re
import uuid
from typing import Final

from flask import Flask, Response, g, request

ACCEPTED: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
"""What a client's own request id may look like. ``deploy/nginx/shelfsight.conf`` has the same pattern."""


def install(app: Flask) -> None:
    """Give every request an id. Install this first: errors and log lines name the id."""
    app.before_request(_set_request_id)
    app.after_request(_add_header)


def _set_request_id() -> None:
    client_id = request.headers.get("X-Request-ID", "")
    g.request_id = client_id if ACCEPTED.match(client_id) else uuid.uuid4().hex


def _add_header(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    return response
