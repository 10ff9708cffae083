"""Give each request an id.

The id comes from the ``X-Request-ID`` header of the request, or it is generated. It is stored in ``g.request_id`` and
returned in the ``X-Request-ID`` header of the response.
"""

import re
import uuid
from typing import Final

from flask import Flask, Response, g, request

ACCEPTED: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
"""The pattern of the request ids that clients can choose. ``deploy/nginx/shelfsight.conf`` has the same pattern."""


def choose_request_id(client_id: str) -> str:
    """Return the id of a request.

    :param client_id: the ``X-Request-ID`` header, which is used if it is valid. It is empty if the header is missing.
    """
    return client_id if ACCEPTED.match(client_id) else uuid.uuid4().hex


def install(app: Flask) -> None:
    """Give every request an id. Call this function before the other ``install`` functions, because they use the id."""
    app.before_request(_set_request_id)
    app.after_request(_add_header)


def _set_request_id() -> None:
    g.request_id = choose_request_id(request.headers.get("X-Request-ID", ""))


def _add_header(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    return response
