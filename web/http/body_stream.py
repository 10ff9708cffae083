"""The stream of a request body: limits on waiting, and a way around gunicorn's buffers.

gunicorn copies every piece of a body that has a length some five times between its buffers, which is the largest stage
of an upload. This stream takes what gunicorn has already buffered, and receives the rest from the kernel in one call.
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

_MIN_BYTES_PER_S: Final = 8 * 1024
"""Average rate that a body must keep after the first seconds of patience."""
_DRAIN_S: Final = 2
_DRAIN_BYTES: Final = 256 * 1024


class BodyStream:
    """The body of one request; ``open_body`` creates it."""

    def __init__(self, stream: Any, sock: socket.socket | None, patience_s: int) -> None:
        """Read from the server's ``stream``, or from the socket below it where the server exposes that."""
        self._stream, self._socket, self._patience_s = stream, sock, patience_s
        self._started_at, self._received = time.monotonic(), 0
        self._drain_until = math.inf
        self._set_receive_timeout(patience_s)
        if sock is not None and isinstance(stream, Body) and isinstance(stream.reader, ChunkedReader):
            _count_received(stream, self._count)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes of a body with a length, fewer only at its end.

        Of a chunked body return the next piece, of at most 1 MB; none only at its end.

        :raises SlowBody: no bytes arrived within the patience, or too few since the beginning.
        :raises BadRequest: the connection broke, or the chunks are malformed.
        """
        reader = self._stream.reader if self._socket is not None and isinstance(self._stream, Body) else None
        try:
            if self._socket is not None and isinstance(reader, LengthReader):
                return self._receive(reader, size, self._socket)
            if isinstance(reader, ChunkedReader):
                return _next_piece(reader)
            data: bytes = self._stream.read(size)
            self._count(len(data))
        except ParseException:
            self._stream.failed = True  # makes gunicorn close the connection after the response
            raise BadRequest(
                "The chunks of the body are malformed, or end too early.", code="malformed_chunks"
            ) from None
        except OSError as error:
            self._stream.failed = True
            if isinstance(error, BlockingIOError):
                raise SlowBody("The body arrives too slowly.") from None
            raise BadRequest("The connection broke within the body.", code="incomplete_body") from None
        return data

    def drain(self) -> None:
        """Read on for up to two seconds after an early refusal, or the client would receive a reset and no response."""
        if getattr(self._stream, "failed", False):
            return
        self._drain_until = time.monotonic() + _DRAIN_S
        try:
            while (left := self._drain_until - time.monotonic()) > 0:
                self._set_receive_timeout(left)
                if not self.read(_DRAIN_BYTES):
                    return
        except BadRequest:
            return

    def close(self) -> None:
        """Restore the socket's receive timeout."""
        self._set_receive_timeout(0)

    def _receive(self, reader: Any, size: int, sock: socket.socket) -> bytes:
        wanted = min(size, reader.length)
        buffered: bytes = reader.unreader.take_buffered()
        if len(buffered) > wanted:
            reader.unreader.unread(buffered[wanted:])
            buffered = buffered[:wanted]
        # BytesIO.getvalue() returns its buffer without a copy, however large the body.
        body = io.BytesIO(bytes(wanted))
        body.write(buffered)
        reader.length -= len(buffered)
        with body.getbuffer() as view:
            while body.tell() < wanted:
                # The kernel returns when everything has arrived, or after the receive timeout in all.
                received = sock.recv_into(view[body.tell() :], flags=socket.MSG_WAITALL)
                reader.length -= received
                if not received:
                    break
                body.seek(received, io.SEEK_CUR)
                self._count(received)
        body.truncate()
        return body.getvalue()

    def _count(self, received: int) -> None:
        self._received += received
        if time.monotonic() > self._drain_until:
            raise BlockingIOError
        if time.monotonic() - self._started_at > self._patience_s + self._received / _MIN_BYTES_PER_S:
            raise BlockingIOError

    def _set_receive_timeout(self, seconds: float) -> None:
        if self._socket is not None:
            whole = int(seconds)
            timeval = struct.pack("ll", whole, int((seconds - whole) * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


class _CountingUnreader:
    """The source of a chunked body; counts everything that arrives, whatever part of the encoding it is.

    gunicorn reads the sizes of chunks and the trailers in a loop of its own, which one byte now and then would keep
    running for hours.
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


def _count_received(stream: Any, count: Callable[[int], None]) -> None:
    """Call ``count`` with the size of all that is received for a chunked body, instead of an earlier call's function."""
    if not hasattr(stream, "counted"):
        stream.counted = _CountingUnreader(stream.reader.req.unreader)
        stream.reader.parser = stream.reader.parse_chunked(stream.counted)
    stream.counted.count = count


def _next_piece(reader: Any) -> bytes:
    return next((piece for piece in reader.parser or () if piece), b"")


@contextmanager
def open_body(environ: dict[str, Any], patience_s: int) -> Iterator[BodyStream]:
    """Take over the body of the request with this WSGI environment.

    :param patience_s: seconds that one read may wait in all.
    """
    stream = BodyStream(environ["wsgi.input"], environ.get("gunicorn.socket"), patience_s)
    try:
        yield stream
    finally:
        stream.close()


def install(app: Flask) -> None:
    """Drain what is left of a body after every refusal."""
    app.after_request(_drain_refused)


def _drain_refused(response: Response) -> Response:
    if response.status_code >= 400 and request.environ.get("gunicorn.socket") is not None:
        with open_body(request.environ, _DRAIN_S) as stream:
            stream.drain()
    return response
