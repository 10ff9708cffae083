"""Parse the first chunks of a WebP file (RFC 9649)."""

import struct

from worker.vision.errors import VisionError


def check(data: bytes) -> int:
    """Verify that the file is as long as its first chunk says.

    :returns: 0, because the decoder counts the frames.
    :raises VisionError: ``truncated``.
    """
    (length,) = struct.unpack_from("<I", data, 4)
    if 8 + length > len(data):
        raise VisionError("truncated")
    return 0


def read_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height from the first chunk; None if the type of the chunk is unknown.

    The chunk describes a canvas (RFC 9649, 2.7), a lossless image (RFC 9649, 3.4) or a lossy image (RFC 6386, 9.1).
    """
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
