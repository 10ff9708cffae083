"""A request's body as it comes in: with a limit on waiting, and past gunicorn's own buffers where it has a length.

gunicorn copies every piece of a body some five times between its buffers, which is the largest stage of an upload. What it
holds already is taken from it; the rest comes from the kernel in one call.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from gunicorn.http.body import Body, LengthReader

from shared.errors import BadRequest, SlowBody

_LEAST_BYTES: Final = 64 * 1024
_DRAIN_S: Final = 2
_DRAIN_STEP: Final = 256 * 1024


class Wire:
    """The body of one request. ``open_wire`` makes it."""

    def __init__(self, stream: Any, sock: socket.socket | None, patience_s: int) -> None:
        """Read from ``stream``, which is the server's; ``sock`` below it, where the server shows it."""
        self._stream, self._socket = stream, sock
        self._wait(patience_s)

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes, fewer only at the end.

        :raises SlowBody: the time of patience has brought less than 64 KB. :raises BadRequest: the connection broke.
        """
        try:
            if self._socket is not None and isinstance(self._stream, Body) and isinstance(self._stream.reader, LengthReader):
                return self._straight(self._stream.reader, size, self._socket)
            read: bytes = self._stream.read(size)
        except OSError as error:
            self._stream.failed = True  # tells gunicorn to close the connection afterwards
            if isinstance(error, BlockingIOError):
                raise SlowBody("The body comes too slowly.") from None
            raise BadRequest("The connection broke within the body.", code="incomplete_body") from None
        return read

    def drain(self) -> None:
        """Read on for up to two seconds after an early refusal, so that the client sees the answer and not a reset."""
        self._wait(_DRAIN_S)
        until = time.monotonic() + _DRAIN_S
        try:
            while time.monotonic() < until and self.read(_DRAIN_STEP):
                pass
        except BadRequest:
            return

    def close(self) -> None:
        """Leave the connection as it was."""
        self._wait(0)

    def _straight(self, reader: Any, size: int, sock: socket.socket) -> bytes:
        wanted = min(size, reader.length)
        held: bytes = reader.unreader.take_buffered()
        if len(held) > wanted:
            reader.unreader.unread(held[wanted:])
            held = held[:wanted]
        parts = [held]
        reader.length -= len(held)
        wanted -= len(held)
        while wanted:
            # The kernel ends this call when all is there, or when it has waited long enough in all.
            part = sock.recv(wanted, socket.MSG_WAITALL)
            parts.append(part)
            reader.length -= len(part)
            wanted -= len(part)
            if not part:
                break
            if wanted and len(part) < min(_LEAST_BYTES, wanted):
                raise BlockingIOError
        return b"".join(parts)

    def _wait(self, seconds: int) -> None:
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


@contextmanager
def open_wire(environ: dict[str, Any], patience_s: int) -> Iterator[Wire]:
    """Take over the body of the request with this WSGI environment.

    :param patience_s: seconds that one read may wait in all.
    """
    wire = Wire(environ["wsgi.input"], environ.get("gunicorn.socket"), patience_s)
    try:
        yield wire
    finally:
        wire.close()
