"""A gunicorn thread worker that returns problem documents for the requests that gunicorn itself refuses."""

import http
import socket
import uuid
from typing import Any, Final

import orjson
from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.gthread import ThreadWorker

from web.http.error_codes import CODES
from web.http.problems import INTERNAL_ERROR_DETAIL, MEDIA_TYPE, document

_REFUSALS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (LimitRequestLine, "uri_too_long", "The URL is too long; shorten it."),
    (LimitRequestHeaders, "headers_too_large", "The request headers are too large, or there are too many of them."),
    (
        ParseException,
        "bad_request",
        "The request is not valid HTTP; check that the URL and the headers are encoded correctly.",
    ),
    (Exception, "internal_error", INTERNAL_ERROR_DETAIL),
)
"""Exception class, error code, and sentence for the client. The first entry with a matching class is used."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gunicorn thread worker that answers invalid requests with problem documents."""

    def handle_error(self, req: Any, client: socket.socket, addr: tuple[str, int] | None, exc: Exception) -> None:
        """Answer a request that never reached the application.

        The response contains the path of the request as ``instance``, but no other part of the request.
        """
        _, code, detail = next(refusal for refusal in _REFUSALS if isinstance(exc, refusal[0]))
        status = CODES[code].status
        request_id = uuid.uuid4().hex
        self.log.warning(
            "%s from %s: %s", code, addr[0] if addr else "?", request_id, exc_info=exc if status >= 500 else None
        )
        title = http.HTTPStatus(status).phrase.capitalize()
        body = orjson.dumps(
            document(status, title, code, detail, instance=getattr(req, "path", None) or "/", request_id=request_id)
        )
        head = [
            f"HTTP/1.1 {status} {title}",
            f"Content-Type: {MEDIA_TYPE}",
            f"Content-Length: {len(body)}",
            f"X-Request-ID: {request_id}",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        try:
            util.write_nonblock(client, "\r\n".join([*head, "", ""]).encode() + body)
        except OSError:
            self.log.debug("%s: the client has disconnected", request_id)
