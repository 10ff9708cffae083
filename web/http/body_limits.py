"""Read request bodies within two limits.

The first limit is the total number of bytes that all bodies in this process can have at the same time. The second limit
is the number of bytes that one body can have. The second limit applies both before and after decompression.
"""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from shared.errors import BadRequest, Busy, TooLarge, UnsupportedMedia

_CHUNK_BYTES: Final = 256 * 1024
_MAX_GZIP_MEMBERS: Final = 10_000

Reserve = Callable[[int], None]
"""A function that reserves the given number of additional bytes for one body.

:raises Busy: when this body and the other bodies that this process holds would together have too many bytes.
"""


class Readable(Protocol):
    """The stream of a request body."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes of the body.

        If the body has a Content-Length, the result has ``size`` bytes, or fewer at the end of the body. For any other
        body, the result has at most ``size`` bytes, and it is empty only at the end of the body.
        """


class BodyBudget:
    """Limits the total size of the request bodies that this process holds at the same time. Thread-safe."""

    def __init__(self, limit: int, on_full: Callable[[str], object] = lambda _: None) -> None:
        """Create the budget.

        :param limit: the maximum number of bytes of all bodies together.
        :param on_full: called with the address of the client before its body is refused because there are too many
            bytes. It can end other bodies, so that the client succeeds when it retries.
        """
        self._limit, self._on_full = limit, on_full
        self._used = 0
        self._lock = threading.Lock()

    @contextmanager
    def open_reservation(self, client: str) -> Iterator[Reserve]:
        """Return a function that reserves bytes for one body; the reserved bytes are released when the context ends.

        :param client: the address of the client that sends the body.
        """
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            with self._lock:
                # The only body in the process is always admitted. Otherwise, a body larger than the whole budget would
                # be refused on every attempt.
                is_full = self._used > reserved and self._used + size > self._limit
                if not is_full:
                    self._used += size
                    reserved += size
            if is_full:
                self._on_full(client)
                raise Busy("Too many uploads are in progress; retry in a moment.", retry_after=1)

        try:
            yield reserve
        finally:
            with self._lock:
                self._used -= reserved


def read_body(stream: Readable, length: int | None, encoding: str, limit: int, reserve: Reserve) -> bytes:
    """Read a whole body, and decompress it if its encoding is gzip.

    :param length: the Content-Length, or None for a chunked body.
    :param encoding: the Content-Encoding in lower case.
    :param limit: the maximum number of bytes, which applies to the compressed and to the decompressed body.
    :raises TooLarge: when the body has more than ``limit`` bytes.
    :raises Busy: when this body and the other bodies that this process holds would together have too many bytes. It is
        not raised if the process holds no other body.
    :raises UnsupportedMedia: when the encoding is neither gzip nor identity.
    :raises BadRequest: when the body ends too early, or is declared as gzip but is not gzip.
    """
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise UnsupportedMedia(
            "Unsupported Content-Encoding; use gzip, or omit the header.", extra={"accepted": ["gzip", "identity"]}
        )
    if length is not None and length > limit:
        raise too_large(limit)
    if encoding in {"gzip", "x-gzip"}:
        return _inflate(stream, limit, reserve)
    if length is None:
        return _join(_chunks(stream), limit, reserve)
    reserve(length)
    body = stream.read(length)
    if len(body) < length:
        raise BadRequest("The body is shorter than its Content-Length; send it again.", code="incomplete_body")
    return body


def too_large(limit: int, name: str = "max_body_bytes") -> TooLarge:
    """Return the error for a body with more than ``limit`` bytes.

    :param name: the name of the limit. Only the default is among the limits that ``GET /limits`` returns.
    """
    return TooLarge(
        f"The body is too large; send at most {limit} bytes.",
        code="body_too_large",
        extra={"limit": name, "value": limit},
    )


def too_many_images(limit: int) -> TooLarge:
    """Return the error for a batch with more than ``limit`` images."""
    extra = {"limit": "max_images", "value": limit}
    return TooLarge(
        f"The batch has too many images; send at most {limit} images in a batch.", code="too_many_images", extra=extra
    )


def _chunks(stream: Readable) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _join(chunks: Iterator[bytes], limit: int, reserve: Reserve) -> bytes:
    body: list[bytes] = []
    for chunk in _limited(chunks, limit):
        reserve(len(chunk))
        body.append(chunk)
    return b"".join(body)


def _inflate(stream: Readable, limit: int, reserve: Reserve) -> bytes:
    """Decompress a gzip stream that consists of one or more members.

    The limit applies to the compressed bytes, too, because a long stream of empty members decompresses to zero bytes.
    """
    try:
        return _join(_inflated_chunks(_limited(_chunks(stream), limit)), limit, reserve)
    except zlib.error as error:
        raise BadRequest(
            "The body is not a gzip stream; compress it, or omit Content-Encoding.", code="bad_gzip"
        ) from error


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
                    raise BadRequest(
                        f"The gzip stream has too many members; send at most {_MAX_GZIP_MEMBERS} members.",
                        code="bad_gzip",
                    )
                inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield inflater.decompress(rest, _CHUNK_BYTES)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise BadRequest("The gzip stream is incomplete; send it again.", code="bad_gzip")
