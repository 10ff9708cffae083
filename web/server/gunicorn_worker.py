"""gunicorn's thread worker, with problem documents where gunicorn refuses a request by itself."""

import http
import socket
import uuid
from typing import Any, Final

import orjson
from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.gthread import ThreadWorker

from web.http.problems import MEDIA_TYPE, document

_REFUSALS: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (LimitRequestLine, 414, "uri_too_long", "The address is too long."),
    (LimitRequestHeaders, 431, "headers_too_large", "The headers are too large, or too many."),
    (ParseException, 400, "bad_request", "This is no HTTP request: is something in the address or a header not encoded?"),
    (Exception, 500, "internal_error", "Something went wrong here; the request id helps to find it."),
)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A thread worker as gunicorn ships it, but for its error pages."""

    def handle_error(self, req: Any, client: socket.socket, addr: tuple[str, int] | None, exc: Exception) -> None:
        """Answer a request that never reached the application; of it only the path is repeated."""
        _, status, code, detail = next(refusal for refusal in _REFUSALS if isinstance(exc, refusal[0]))
        request_id = uuid.uuid4().hex
        self.log.warning("%s from %s: %s", code, addr[0] if addr else "?", request_id, exc_info=exc if status >= 500 else None)
        title = http.HTTPStatus(status).phrase.capitalize()
        body = orjson.dumps(document(status, title, code, detail, instance=getattr(req, "path", None) or "/", request_id=request_id))
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
            self.log.debug("%s: the client has gone", request_id)
