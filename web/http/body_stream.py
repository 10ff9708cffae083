"""Read a request body with limits on the waiting time, and without gunicorn's buffers.

For a body with a Content-Length, gunicorn copies every piece about five times between its buffers, and this copying takes
more time than any other step of an upload. The stream in this module takes the bytes that gunicorn has already buffered,
and receives the remaining bytes from the kernel in one call.
"""

import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from flask import Flask, Response, request
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException

from shared.allocator import uncleared_buffer
from shared.errors import BadRequest, SlowBody
from web.http.slow_clients import SLOW_CLIENTS, ClientWait, Wait

_MIN_BYTES_PER_S: Final = 32 * 1024
"""The minimum average number of bytes per second of a body. It applies after the first ``patience_s`` seconds. So there
is a time limit for each body, which grows with its size: 35 minutes for 64 MB."""
_DRAIN_S: Final = 2
_DRAIN_BYTES: Final = 256 * 1024


class BodyStream:
    """The body of one request. Use ``open_body`` to create an instance."""

    def __init__(self, stream: Any, sock: socket.socket | None, patience_s: int, client: str) -> None:
        """Create the stream, and set the receive timeout of the socket.

        :param stream: the server's input stream.
        :param sock: the socket of the connection; None if the server does not expose its socket.
        :param patience_s: the maximum number of seconds that one read may wait in total.
        :param client: the address of the client, behind any trusted proxy.
        """
        self._stream, self._socket, self._patience_s = stream, sock, patience_s
        self._started_at, self._received = time.monotonic(), 0
        self._drain_until = math.inf
        self._wait = ClientWait(sock, Wait.BODY, client) if sock is not None else None
        self._set_receive_timeout(patience_s)
        if sock is not None and isinstance(stream, Body) and isinstance(stream.reader, ChunkedReader):
            _count_received(stream, self._count)

    def read(self, size: int) -> bytes:
        """Return the next bytes of the body.

        If the body has a Content-Length, the result has ``size`` bytes, or fewer at the end of the body. For a chunked
        body, the result is the next piece, which has at most 1 MB and is empty only at the end of the body.

        :raises SlowBody: when no bytes arrived for ``patience_s`` seconds, when the average rate is too low, or when other
            requests need the thread or the memory and this body was chosen (see ``web.http.slow_clients``).
        :raises BadRequest: when the connection broke, or when the chunks are malformed.
        """
        with SLOW_CLIENTS.register(self._wait) if self._wait is not None else nullcontext():
            return self._read(size)

    def peek(self, size: int) -> bytes:
        """Return the next bytes of a body with a Content-Length. The next call of ``read`` returns them again.

        The result is empty if the server is not gunicorn, because no other stream takes bytes back.

        :raises ShelfsightError: in the same cases as ``read``.
        """
        reader = self._reader
        if not isinstance(reader, LengthReader):
            return b""
        data = self.read(size)
        reader.unreader.unread(data)
        reader.length += len(data)
        return data

    @property
    def _reader(self) -> Any:
        """The reader of gunicorn. None if the server is not gunicorn."""
        return self._stream.reader if self._socket is not None and isinstance(self._stream, Body) else None

    def _read(self, size: int) -> bytes:
        reader = self._reader
        try:
            if self._socket is not None and isinstance(reader, LengthReader):
                return self._receive(reader, size, self._socket)
            if isinstance(reader, ChunkedReader):
                return _next_piece(reader)
            data: bytes = self._stream.read(size)
            self._count(len(data))
        except ParseException:
            self._stream.failed = True  # makes gunicorn close the connection after the response
            if self._is_ended():
                raise _too_slow() from None
            raise BadRequest(
                "The chunked encoding of the body is malformed or incomplete; send the body again.",
                code="malformed_chunks",
            ) from None
        except OSError as error:
            self._stream.failed = True
            if isinstance(error, BlockingIOError):
                raise _too_slow() from None
            raise BadRequest("The connection broke before the end of the body.", code="incomplete_body") from None
        return data

    def drain(self) -> None:
        """Read and discard the remaining body for up to two seconds.

        This is needed when a request is refused before its body has been read. Otherwise, the connection would be reset
        and the client would not receive the response.
        """
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
        """Remove the receive timeout from the socket."""
        self._set_receive_timeout(0)

    def _receive(self, reader: Any, size: int, sock: socket.socket) -> bytes:
        wanted = min(size, reader.length)
        buffered: bytes = reader.unreader.take_buffered()
        if len(buffered) > wanted:
            reader.unreader.unread(buffered[wanted:])
            buffered = buffered[:wanted]
        # Only the bytes that have been received are returned, not the arbitrary content of the buffer.
        body = uncleared_buffer(wanted)
        body.write(buffered)
        reader.length -= len(buffered)
        with body.getbuffer() as view:
            while body.tell() < wanted:
                # With MSG_WAITALL, the call returns when all the requested bytes have arrived, or after the receive
                # timeout, which limits the total duration of the call.
                received = sock.recv_into(view[body.tell() :], flags=socket.MSG_WAITALL)
                reader.length -= received
                if not received:
                    if self._is_ended():
                        raise BlockingIOError
                    break
                body.seek(received, os.SEEK_CUR)
                self._count(received)
        body.truncate()
        return body.getvalue()

    def _is_ended(self) -> bool:
        return self._wait is not None and self._wait.ended

    def _count(self, received: int) -> None:
        self._received += received
        if time.monotonic() > self._drain_until:
            raise BlockingIOError
        if time.monotonic() - self._started_at > self._patience_s + self._received / _MIN_BYTES_PER_S:
            raise BlockingIOError

    def _set_receive_timeout(self, seconds: float) -> None:
        if self._socket is not None:
            # Round up, because the kernel takes 0 microseconds as no limit at all.
            timeval = struct.pack("ll", *divmod(math.ceil(seconds * 1_000_000), 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def _too_slow() -> SlowBody:
    return SlowBody("The body arrives too slowly; retry later, or over a faster connection.", retry_after=5)


class _CountingUnreader:
    """Wraps gunicorn's ``Unreader`` for a chunked body, and counts all bytes that arrive: data, chunk sizes and trailers.

    gunicorn reads chunk sizes and trailers in a loop without a time limit. A client that sends one byte from time to time
    could keep this loop running for hours. To prevent this, every read calls the function in ``count`` with the number
    of bytes that arrived. If the function raises an exception, the loop ends.
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
    """Arrange that ``count`` is called with the number of new bytes whenever bytes of a chunked body arrive.

    If this function is called several times for the same body, only the last ``count`` is used.
    """
    if not hasattr(stream, "counted"):
        stream.counted = _CountingUnreader(stream.reader.req.unreader)
        stream.reader.parser = stream.reader.parse_chunked(stream.counted)
    stream.counted.count = count


def _next_piece(reader: Any) -> bytes:
    return next((piece for piece in reader.parser or () if piece), b"")


@contextmanager
def open_body(environ: dict[str, Any], patience_s: int) -> Iterator[BodyStream]:
    """Open the body of the request that has this WSGI environment.

    :param patience_s: the maximum number of seconds that one read may wait in total.
    """
    stream = BodyStream(environ["wsgi.input"], environ.get("gunicorn.socket"), patience_s, environ.get("REMOTE_ADDR", ""))
    try:
        yield stream
    finally:
        stream.close()


def install(app: Flask) -> None:
    """Make ``app`` read and discard the rest of the body whenever it refuses a request."""
    app.after_request(_drain_refused)


def _drain_refused(response: Response) -> Response:
    if response.status_code >= 400 and request.environ.get("gunicorn.socket") is not None:
        with open_body(request.environ, _DRAIN_S) as stream:
            stream.drain()
    return response
