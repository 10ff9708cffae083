"""Reads the content of a response: undoes its encoding, limits its size, and recognizes a stream that never ends."""

import re
import zlib
from collections.abc import Callable, Iterable
from typing import Final

from shared.errors import NotAnImage, SourceTooLarge, UpstreamError
from shared.fetch.transport import SourceResponse

IsImage = Callable[[bytes], bool]
"""A function that returns whether content that begins with these bytes (at least ``HEAD_BYTES``) can be an image."""
HEAD_BYTES: Final = 32
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_CODINGS: Final = _GZIP | {
    "aes128gcm",
    "br",
    "compress",
    "dcb",
    "dcz",
    "deflate",
    "exi",
    "pack200-gzip",
    "x-compress",
    "zstd",
}
"""The content codings in IANA's registry (as of 2025) other than ``identity``. Any other token is ignored, as browsers
do: object stores return what they were told at the upload, for example ``UTF-8`` or ``aws-chunked``."""
_STREAM: Final = re.compile(
    r"multipart/.*|text/event-stream|application/(?:vnd\.apple\.mpegurl|x-mpegurl|dash\+xml)", re.IGNORECASE
)
_JPEG_START: Final = b"\xff\xd8\xff"
_NEXT_JPEG: Final = re.compile(rb"\xff\xd9[\r\n\0]{0,16}\xff\xd8\xff")
_NEXT_JPEG_BYTES: Final = 2 + 16 + 3
_MAX_JPEGS: Final = 8
"""Some files consist of a few JPEGs (Multi-Picture Format), but a source that sends more of them, without a
``Content-Length``, is a camera that never stops."""
_LIVE: Final = (
    "The URL leads to a live stream, not to an image. Use the address at which the camera shows a single image (often "
    "called a snapshot)."
)
_NO_IMAGE: Final = (
    "The content of the source is not an image in a supported format; use the URL of a JPEG, PNG, WebP, GIF, BMP, TIFF "
    "or AVIF."
)


def read_content(response: SourceResponse, max_bytes: int, is_image: IsImage | None = None) -> bytes:
    """Read the content of a response.

    The request asks for the ``identity`` encoding. However, some object stores keep compressed content and send it
    compressed regardless of the request. For this reason, gzip content is decompressed; the size limit applies to the
    result.

    :param is_image: if this function returns False, the rest of the content is not read.
    :raises NotAnImage: when the source declares a live stream, or sends one, or ``is_image`` returns False.
    :raises SourceTooLarge: when the declared or the actual size of the content exceeds ``max_bytes``.
    :raises UpstreamError: when the content has another encoding, or is declared as gzip and is not valid gzip.
    """
    if _STREAM.fullmatch(_media_type(response)):
        raise NotAnImage(_LIVE)
    declared = response.header(b"content-length")
    if declared and int(declared) > max_bytes:  # safe, because h11 has checked that the value has at most 20 digits
        raise _too_large(max_bytes)
    parts: Iterable[bytes] = response.body
    codings = _codings(response)
    if len(codings) > 1 or not _GZIP.issuperset(codings):
        raise UpstreamError(
            f"The content of the source has an unsupported encoding ({', '.join(codings)}); the supported encodings "
            "are identity and gzip."
        )
    if codings:
        parts = _decompress(parts, max_bytes)
    return _join(parts, max_bytes, is_image, endless=not declared)


def _media_type(response: SourceResponse) -> str:
    return response.header(b"content-type").decode("latin-1").partition(";")[0].strip()


def _codings(response: SourceResponse) -> list[str]:
    """Return the registered codings that the source declares, in lower case."""
    tokens = response.header(b"content-encoding").decode("latin-1").lower().split(",")
    return [coding for token in tokens if (coding := token.partition(";")[0].strip()) in _CODINGS]


def _join(parts: Iterable[bytes], max_bytes: int, is_image: IsImage | None, *, endless: bool) -> bytes:
    """Join the parts of the content.

    :param endless: whether the source does not say how long the content is.
    """
    content = bytearray()
    checked = is_image is None
    jpegs = 1
    for part in parts:
        searched = max(0, len(content) - _NEXT_JPEG_BYTES + 1)
        content += part
        if not checked and is_image is not None and len(content) >= HEAD_BYTES:
            if not is_image(bytes(content[:HEAD_BYTES])):
                # Each part of a multipart stream begins with a boundary, even if the source declares another type. A line
                # break can precede it.
                raise NotAnImage(_LIVE if content[:HEAD_BYTES].lstrip().startswith(b"--") else _NO_IMAGE)
            checked = True
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
        if endless and content.startswith(_JPEG_START):
            jpegs += sum(1 for _ in _NEXT_JPEG.finditer(content, searched))
            if jpegs > _MAX_JPEGS:
                raise NotAnImage(_LIVE)
    return bytes(content)


def _decompress(parts: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    """Decompress gzip content. No yielded part is longer than ``max_bytes`` + 1 bytes, for any compression ratio."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        for part in parts:
            yield stream.decompress(part, max_bytes + 1)
            # If zlib has input left after max_bytes + 1 bytes of output, the content exceeds the limit, so _join has
            # raised an error and this line is not reached. If there is data after the end of the gzip stream, stop
            # here, because zlib would copy all of that data once more for each further part.
            if stream.unused_data:
                break
    except zlib.error as error:
        raise UpstreamError("The source declares gzip, but its content is not valid gzip.") from error
    if not stream.eof or stream.unused_data:
        raise UpstreamError("The source declares gzip, but its content is not valid gzip.")


def _too_large(max_bytes: int) -> SourceTooLarge:
    return SourceTooLarge(
        f"The source is larger than {max_bytes:,} bytes.", extra={"limit": "max_source_bytes", "value": max_bytes}
    )
