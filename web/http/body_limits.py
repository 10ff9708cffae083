"""Reading bodies within bounds: how many bytes may be in flight, how large one may be, inflated or not."""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from shared.errors import BadRequest, Busy, TooLarge, UnsupportedMedia

_STEP: Final = 256 * 1024
_MAX_MEMBERS: Final = 10_000


class Readable(Protocol):
    """The body of a request."""

    def read(self, size: int, /) -> bytes:
        """Give ``size`` bytes of a body with a length, fewer only at its end; of any other at most so many, none only at its end."""


class Budget:
    """Bytes of bodies in flight in this process."""

    def __init__(self, limit: int) -> None:
        """Allow ``limit`` bytes in all."""
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes more bytes of the budget; all go back at the end.

        The function raises ``Busy`` (429) when there are none left.
        """
        mine = 0

        def take(more: int) -> None:
            nonlocal mine
            with self._lock:
                # A single body may always come in, or a small budget would refuse it for ever.
                if self._used > mine and self._used + more > self._limit:
                    raise Busy("Too many uploads are in flight; try again in a moment.", retry_after=1)
                self._used += more
                mine += more

        try:
            yield take
        finally:
            with self._lock:
                self._used -= mine


def read_body(stream: Readable, length: int | None, encoding: str, limit: int, take: Callable[[int], None]) -> bytes:
    """Read a whole body, inflated when it is gzip.

    :param length: Content-Length, or None for a chunked body.
    :param encoding: Content-Encoding, lower case.
    :param limit: most bytes, inflated.
    :raises TooLarge: more than ``limit``. :raises BadRequest: it ends too early, or is no gzip.
    """
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise UnsupportedMedia("Content-Encoding must be gzip or absent.", extra={"accepted": ["gzip", "identity"]})
    if length is not None and length > limit:
        raise too_large(limit)
    if encoding in {"gzip", "x-gzip"}:
        return _inflate(stream, limit, take)
    if length is None:
        return _collect(_steps(stream), limit, take)
    take(length)
    body = stream.read(length)
    if len(body) < length:
        raise BadRequest("The body ended before its Content-Length.", code="incomplete_body")
    return body


def too_large(limit: int) -> TooLarge:
    """Make the error for a body above its limit."""
    return TooLarge(
        f"The body may have {limit} bytes.", code="body_too_large", extra={"limit": "max_body_bytes", "value": limit}
    )


def too_many_images(limit: int) -> TooLarge:
    """Make the error for a batch of too many images."""
    extra = {"limit": "max_images", "value": limit}
    return TooLarge(f"A batch may have {limit} images.", code="too_many_images", extra=extra)


def _steps(stream: Readable) -> Iterator[bytes]:
    while part := stream.read(_STEP):
        yield part


def _collect(parts: Iterator[bytes], limit: int, take: Callable[[int], None]) -> bytes:
    body: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > limit:
            raise too_large(limit)
        take(len(part))
        body.append(part)
    return b"".join(body)


def _inflate(stream: Readable, limit: int, take: Callable[[int], None]) -> bytes:
    """Inflate a gzip stream of one or more members; what is read of it is bounded too, whatever comes of it."""
    try:
        return _collect(_members(_bounded(_steps(stream), limit)), limit, take)
    except zlib.error as error:
        raise BadRequest("The body is no gzip stream.", code="bad_gzip") from error


def _bounded(parts: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for part in parts:
        size += len(part)
        if size > limit:
            raise too_large(limit)
        yield part


def _members(parts: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    members = 1
    for compressed in parts:
        rest = compressed
        while rest:
            if inflater.eof:
                members += 1
                if members > _MAX_MEMBERS:
                    raise BadRequest(f"The gzip stream has more than {_MAX_MEMBERS} members.", code="bad_gzip")
                inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield inflater.decompress(rest, _STEP)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise BadRequest("The gzip stream ends too early.", code="bad_gzip")
