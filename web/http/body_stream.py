"""A request's body as it comes in: with limits on waiting, and past gunicorn's own buffers.

gunicorn copies every piece of a body with a length some five times between its buffers, which is the largest stage of an
upload. What it holds already is taken from it; the rest comes from the kernel in one call.
"""

import io
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from flask import Flask, Response, request
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException

from shared.errors import BadRequest, SlowBody

_SLOWEST: Final = 8 * 1024
"""Bytes a second that a body must bring on the whole, after the first seconds of patience."""
_DRAIN_S: Final = 2
_DRAIN_STEP: Final = 256 * 1024


class Wire:
    """The body of one request. ``open_wire`` makes it."""

    def __init__(self, stream: Any, sock: socket.socket | None, patience_s: int) -> None:
        """Read from ``stream``, which is the server's; ``sock`` below it, where the server shows it."""
        self._stream, self._socket, self._patience = stream, sock, patience_s
        self._began, self._received = time.monotonic(), 0
        self._until = math.inf
        self._wait(patience_s)
        if sock is not None and isinstance(stream, Body) and isinstance(stream.reader, ChunkedReader):
            _count_below(stream, self._count)

    def read(self, size: int) -> bytes:
        """Give ``size`` bytes of a body with a length, fewer only at its end; of a chunked one the next piece, of at most 1 MB.

        :raises SlowBody: nothing came for as long as patience lasts, or too little since the beginning.
        :raises BadRequest: the connection broke, or the chunks are none.
        """
        reader = self._stream.reader if self._socket is not None and isinstance(self._stream, Body) else None
        try:
            if self._socket is not None and isinstance(reader, LengthReader):
                return self._straight(reader, size, self._socket)
            if isinstance(reader, ChunkedReader):
                return _piece(reader)
            part: bytes = self._stream.read(size)
            self._count(len(part))
        except ParseException:
            self._stream.failed = True  # tells gunicorn to close the connection afterwards
            raise BadRequest("The body's chunks cannot be taken apart, or end too early.", code="malformed_chunks") from None
        except OSError as error:
            self._stream.failed = True
            if isinstance(error, BlockingIOError):
                raise SlowBody("The body comes too slowly.") from None
            raise BadRequest("The connection broke within the body.", code="incomplete_body") from None
        return part

    def drain(self) -> None:
        """Read on for up to two seconds after an early refusal, so that the client sees the answer and not a reset."""
        if getattr(self._stream, "failed", False):
            return
        self._until = time.monotonic() + _DRAIN_S
        try:
            while (left := self._until - time.monotonic()) > 0:
                self._wait(left)
                if not self.read(_DRAIN_STEP):
                    return
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
        # A BytesIO hands its buffer over as bytes: nothing of a large body is copied.
        body = io.BytesIO(bytes(wanted))
        body.write(held)
        reader.length -= len(held)
        with body.getbuffer() as room:
            while body.tell() < wanted:
                # The kernel ends this call when all is there, or when it has waited long enough in all.
                received = sock.recv_into(room[body.tell() :], flags=socket.MSG_WAITALL)
                reader.length -= received
                if not received:
                    break
                body.seek(received, io.SEEK_CUR)
                self._count(received)
        body.truncate()
        return body.getvalue()

    def _count(self, received: int) -> None:
        self._received += received
        if time.monotonic() > self._until:
            raise BlockingIOError
        if time.monotonic() - self._began > self._patience + self._received / _SLOWEST:
            raise BlockingIOError

    def _wait(self, seconds: float) -> None:
        if self._socket is not None:
            whole = int(seconds)
            limit = struct.pack("ll", whole, int((seconds - whole) * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


class _Counted:
    """What a chunked body is read from, with every piece that comes in counted, whatever it is a part of.

    Sizes of chunks and trailers are read in a loop of gunicorn's own: one byte now and then would keep it for hours.
    """

    def __init__(self, unreader: Any) -> None:
        self._unreader = unreader
        self.count: Callable[[int], None] = lambda _: None

    def read(self, *size: Any, **options: Any) -> bytes:
        data: bytes = self._unreader.read(*size, **options)
        self.count(len(data))
        return data

    def unread(self, data: bytes) -> None:
        self._unreader.unread(data)


def _count_below(stream: Any, count: Callable[[int], None]) -> None:
    """Let ``count`` hear of all that is received for a chunked body; a later caller takes the place of an earlier one."""
    if not hasattr(stream, "counted"):
        stream.counted = _Counted(stream.reader.req.unreader)
        stream.reader.parser = stream.reader.parse_chunked(stream.counted)
    stream.counted.count = count


def _piece(reader: Any) -> bytes:
    return next((piece for piece in reader.parser or () if piece), b"")


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


def install(app: Flask) -> None:
    """Drain what is left of a body after every refusal, wherever it came from."""

    def drain(answer: Response) -> Response:
        if answer.status_code >= 400 and request.environ.get("gunicorn.socket") is not None:
            with open_wire(request.environ, _DRAIN_S) as wire:
                wire.drain()
        return answer

    app.after_request(drain)
