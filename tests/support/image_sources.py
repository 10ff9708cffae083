"""Servers that send exactly the bytes that a test specifies, even if these are not correct HTTP."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

ConnectionHandler = Callable[[socket.socket, str], None]
"""Is called with a connection and the request's header section. After the call, the server closes the connection."""

PERMITTED_ADDRESS = "127.0.0.9"
"""A loopback address from which the tests permit the service to fetch. They do not permit 127.0.0.1."""


def ok_response(data: bytes = b"picture", **headers: str) -> bytes:
    """Return a complete response with status 200. In the names of ``headers``, ``_`` is replaced by ``-``."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Content_Length": str(len(data)), **headers}.items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + data


def redirect_response(location: str, status: int = 302) -> bytes:
    """Return a complete redirect response."""
    return f"HTTP/1.1 {status} There\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def respond_with(response: bytes) -> ConnectionHandler:
    """Return a handler that sends the same response to every request."""
    return lambda connection, _: connection.sendall(response)


class SourceServer:
    """A server that runs until its ``with`` block ends.

    ``requests`` contains the header sections of all received requests. ``connections`` is the number of accepted
    connections, including those without a request.
    """

    def __init__(self, handler: ConnectionHandler, host: str = PERMITTED_ADDRESS, tls: ssl.SSLContext | None = None) -> None:
        """Open the listening socket. The server accepts connections only after the ``with`` block has begun."""
        self.requests: list[str] = []
        self.connections = 0
        self.finished = threading.Event()
        """Set when a request was handled, or when handling it failed because the client had closed the connection."""
        self._handler = handler
        self._tls = tls
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the listening socket. Handlers that are still running are not stopped."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_for(self, requests: int) -> None:
        """Wait until the server has received at least ``requests`` requests."""
        deadline = time.monotonic() + 60
        while len(self.requests) < requests:
            assert time.monotonic() < deadline, "fewer requests than expected were received within 60 s"
            time.sleep(0.01)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        with connection, suppress(OSError):
            stream = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with stream:
                received = b""
                while b"\r\n\r\n" not in received:
                    more = stream.recv(65536)
                    if not more:
                        return
                    received += more
                request = received.decode("latin-1")
                self.requests.append(request)
                self._handler(stream, request)
        self.finished.set()
