"""Servers that send exactly the bytes that a test specifies, whether correct HTTP or not."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

ConnectionHandler = Callable[[socket.socket, str], None]
"""Receives the connection and the request's header section. The server closes the connection afterwards."""

PERMITTED_ADDRESS = "127.0.0.9"
"""A loopback address that the tests permit to be fetched from. They do not permit 127.0.0.1."""


def ok_response(data: bytes = b"picture", **headers: str) -> bytes:
    """Return a complete 200 response."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Content_Length": str(len(data)), **headers}.items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + data


def redirect_response(location: str, status: int = 302) -> bytes:
    """Return a redirect response."""
    return f"HTTP/1.1 {status} There\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def respond_with(response: bytes) -> ConnectionHandler:
    """Return a handler that sends the same response to every request."""
    return lambda connection, _: connection.sendall(response)


class SourceServer:
    """A server that runs while its ``with`` block lasts.

    ``requests`` holds the header sections received. ``connections`` also counts connections without a request.
    """

    def __init__(self, handler: ConnectionHandler, host: str = PERMITTED_ADDRESS, tls: ssl.SSLContext | None = None) -> None:
        """Open the listening socket. Connections are accepted when the ``with`` block begins."""
        self.requests: list[str] = []
        self.connections = 0
        self.finished = threading.Event()
        """Set when a request has been handled, or when its client has closed the connection."""
        self._handler = handler
        self._tls = tls
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the listening socket. Handlers that still run are not stopped."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_for(self, requests: int) -> None:
        """Wait until ``requests`` requests have been received."""
        deadline = time.monotonic() + 60
        while len(self.requests) < requests:
            assert time.monotonic() < deadline, "too few requests were received"
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
