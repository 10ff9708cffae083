"""gunicorn's thread worker, with problem documents for the requests that gunicorn itself refuses."""

import http
import socket
import uuid
from typing import Any, Final

import orjson
from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.gthread import ThreadWorker

from web.http.error_codes import CODES
from web.http.problems import MEDIA_TYPE, document

_REFUSALS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (LimitRequestLine, "uri_too_long", "The address is too long."),
    (LimitRequestHeaders, "headers_too_large", "The headers are too large, or too many."),
    (ParseException, "bad_request", "This is not an HTTP request; check that address and headers are encoded."),
    (Exception, "internal_error", "Internal error of the service; report the request id, which its log contains."),
)
"""Code and sentence by exception; the first that matches applies."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's thread worker with error documents of our own."""

    def handle_error(self, req: Any, client: socket.socket, addr: tuple[str, int] | None, exc: Exception) -> None:
        """Answer a request that never reached the application; the response repeats nothing of it but the path."""
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
