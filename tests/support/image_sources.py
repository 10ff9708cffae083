"""Servers that answer byte for byte as a test wants, well or badly."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

ConnectionHandler = Callable[[socket.socket, str], None]
"""Gets the connection, and the request's lines up to the empty one; the connection is closed behind it."""

PERMITTED_ADDRESS = "127.0.0.9"
"""A loopback address that tests permit, beside 127.0.0.1, which they do not."""


def ok_response(data: bytes = b"picture", **headers: str) -> bytes:
    """Make a whole answer."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Content_Length": str(len(data)), **headers}.items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + data


def redirect_response(location: str, status: int = 302) -> bytes:
    """Make a redirect."""
    return f"HTTP/1.1 {status} There\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def respond_with(answer: bytes) -> ConnectionHandler:
    """Send this, whatever is asked."""
    return lambda connection, _: connection.sendall(answer)


class SourceServer:
    """Listens while its ``with`` lasts; ``requests`` are what came, ``connections`` counts also those that asked nothing."""

    def __init__(self, behaviour: ConnectionHandler, host: str = PERMITTED_ADDRESS, tls: ssl.SSLContext | None = None) -> None:
        """Listen already, but answer nobody yet."""
        self.requests: list[str] = []
        self.connections = 0
        self.ended = threading.Event()
        """Somebody has been answered, or went away before that."""
        self._behaviour = behaviour
        self._tls = tls
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> Self:
        """Begin."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Listen no more; who is being answered finds out by itself."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_for(self, requests: int) -> None:
        """Wait until so many have come."""
        deadline = time.monotonic() + 60
        while len(self.requests) < requests:
            assert time.monotonic() < deadline, "nobody asked"
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
                asked = received.decode("latin-1")
                self.requests.append(asked)
                self._behaviour(stream, asked)
        self.ended.set()
