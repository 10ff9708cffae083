"""Reading request bodies within limits: bytes in flight in this process, bytes of one body, inflated or not."""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from shared.errors import BadRequest, Busy, TooLarge, UnsupportedMedia

_CHUNK_BYTES: Final = 256 * 1024
_MAX_GZIP_MEMBERS: Final = 10_000

Reserve = Callable[[int], None]
"""Reserves so many more bytes for one body.

:raises Busy: too many bytes are in flight.
"""


class Readable(Protocol):
    """The body of a request."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes of a body with a length, fewer only at its end.

        Of any other body return at most ``size`` bytes, none only at its end.
        """


class BodyBudget:
    """Limits the bytes of all request bodies that this process holds at a time. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @contextmanager
    def open_reservation(self) -> Iterator[Reserve]:
        """Reserve bytes for one body with the function that this returns; all of them are released at the end."""
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            with self._lock:
                # A body alone is always admitted: a budget smaller than one body would refuse that body for ever.
                if self._used > reserved and self._used + size > self._limit:
                    raise Busy("Too many uploads are in flight; try again in a moment.", retry_after=1)
                self._used += size
                reserved += size

        try:
            yield reserve
        finally:
            with self._lock:
                self._used -= reserved


def read_body(stream: Readable, length: int | None, encoding: str, limit: int, reserve: Reserve) -> bytes:
    """Read a whole body, inflated if it is gzip.

    :param length: Content-Length, or None for a chunked body.
    :param encoding: Content-Encoding, lower case.
    :param limit: maximum of bytes, inflated.
    :raises TooLarge: the body has more than ``limit`` bytes. :raises Busy: too many bytes are in flight.
    :raises UnsupportedMedia: another encoding. :raises BadRequest: the body ends too early, or is not gzip.
    """
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise UnsupportedMedia("Content-Encoding must be gzip or absent.", extra={"accepted": ["gzip", "identity"]})
    if length is not None and length > limit:
        raise too_large(limit)
    if encoding in {"gzip", "x-gzip"}:
        return _inflate(stream, limit, reserve)
    if length is None:
        return _join(_chunks(stream), limit, reserve)
    reserve(length)
    body = stream.read(length)
    if len(body) < length:
        raise BadRequest("The body ended before its Content-Length.", code="incomplete_body")
    return body


def too_large(limit: int) -> TooLarge:
    """Return the error for a body above its limit."""
    return TooLarge(
        f"The body may have at most {limit} bytes.", code="body_too_large", extra={"limit": "max_body_bytes", "value": limit}
    )


def too_many_images(limit: int) -> TooLarge:
    """Return the error for a batch of too many images."""
    extra = {"limit": "max_images", "value": limit}
    return TooLarge(f"A batch may have at most {limit} images.", code="too_many_images", extra=extra)


def _chunks(stream: Readable) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _join(chunks: Iterator[bytes], limit: int, reserve: Reserve) -> bytes:
    body: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        reserve(len(chunk))
        body.append(chunk)
    return b"".join(body)


def _inflate(stream: Readable, limit: int, reserve: Reserve) -> bytes:
    """Inflate a gzip stream of one or more members.

    The compressed bytes have the same limit: a stream of empty members inflates to nothing.
    """
    try:
        return _join(_inflated_chunks(_limited(_chunks(stream), limit)), limit, reserve)
    except zlib.error as error:
        raise BadRequest("The body is not a gzip stream.", code="bad_gzip") from error


def _limited(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        yield chunk


def _inflated_chunks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    members = 1
    for compressed in chunks:
        rest = compressed
        while rest:
            if inflater.eof:
                members += 1
                if members > _MAX_GZIP_MEMBERS:
                    raise BadRequest(f"The gzip stream has more than {_MAX_GZIP_MEMBERS} members.", code="bad_gzip")
                inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield inflater.decompress(rest, _CHUNK_BYTES)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise BadRequest("The gzip stream ends too early.", code="bad_gzip")
