"""A gunicorn thread worker that is safe against slow clients and returns problem documents for the requests that it refuses.

gunicorn waits in a request thread, without a time limit, for the head of a request and until a response is sent. So a few
clients that send or receive slowly could occupy all threads. This worker gives a thread only to connections on which bytes
have arrived, and registers all waits for clients at ``web.http.slow_clients``, which ends those that take too long.
"""

import http
import socket
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Final

import orjson
from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers import gthread
from gunicorn.workers.gthread import ThreadWorker

from web.http.error_codes import CODES
from web.http.problems import INTERNAL_ERROR_DETAIL, MEDIA_TYPE, document
from web.http.request_id import choose_request_id
from web.http.slow_clients import SLOW_CLIENTS, ClientWait, Wait

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
    """A gunicorn thread worker that bounds the waits for clients, and answers invalid requests with problem documents."""

    wsgi: Any

    def init_process(self) -> None:
        """Start the thread that ends the waits for slow clients. Then run the worker until the process ends."""
        self._lock = threading.Lock()
        self._waiting_requests = 0
        """The number of requests that wait for a thread."""
        self._current_wait = threading.local()
        SLOW_CLIENTS.start_checking(
            self.cfg.threads,
            lambda: self._waiting_requests,
            lambda ended: self.log.warning("%d connections were ended because their clients were too slow", ended),
        )
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application, and register the time after it has returned as a wait for the client."""
        super().load_wsgi()
        application = self.wsgi

        def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            response: Iterable[bytes] = application(environ, start_response)
            wait = ClientWait(environ["gunicorn.socket"], Wait.RESPONSE, environ["REMOTE_ADDR"])
            self._current_wait.stack.enter_context(SLOW_CLIENTS.register(wait))
            return response

        self.wsgi = call

    def enqueue_req(self, conn: Any) -> None:
        """Submit a connection to the thread pool."""
        with self._lock:
            self._waiting_requests += 1
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Handle a request on a connection in a thread of the pool.

        A new connection without data is returned to the event loop at once. gunicorn would wait for five seconds.
        """
        with self._lock:
            self._waiting_requests -= 1
        if not conn.initialized and not conn.wait_for_data(0):
            return gthread._DEFER  # noqa: SLF001 -- the value that finish_request expects
        with ExitStack() as stack:
            self._current_wait.stack = stack
            peer = str(conn.client[0]) if conn.client else ""
            stack.enter_context(SLOW_CLIENTS.register(ClientWait(conn.sock, Wait.HEAD, peer)))
            return super().handle(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Count a connection as finished, or wait for its next request.

        After a response that failed in the middle, the socket is closed already. gunicorn would count such a connection
        as finished twice, and a worker that stops would then wait for the whole grace period.
        """
        if conn.sock.fileno() < 0:
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Handle a request whose head has been received."""
        self._current_wait.stack.close()  # the wait for the head is over
        return super().handle_request(req, conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """When the worker stops, close idle connections by ``deadline``, including those that never had a request."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_error(self, req: Any, client: socket.socket, addr: tuple[str, int] | None, exc: Exception) -> None:
        """Answer a request that never reached the application.

        The response contains the path of the request as ``instance``, and its id if all its headers were parsed, but no
        other part of the request.
        """
        _, code, detail = next(refusal for refusal in _REFUSALS if isinstance(exc, refusal[0]))
        status = CODES[code].status
        # For an error in a header, gunicorn passes no request, but the error has it.
        headers = dict(getattr(req or getattr(exc, "req", None), "headers", None) or ())
        request_id = choose_request_id(headers.get("X-REQUEST-ID", ""))
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
