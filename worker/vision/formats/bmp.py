"""Parse the header of a BMP file."""

import struct
from typing import Final

from worker.vision.errors import VisionError

_CORE_HEADER_LENGTH: Final = 12
"""Length in bytes of the oldest header (BITMAPCOREHEADER), which identifies it."""


def check(data: bytes) -> int:
    """Verify that the header is complete; Pillow itself requires every row of pixels.

    :returns: the number of frames, 1.
    :raises VisionError: ``truncated``.
    """
    (header_length,) = struct.unpack_from("<I", data, 14)
    if 14 + header_length > len(data):
        raise VisionError("truncated")
    return 1


def read_size(data: bytes) -> tuple[int, int]:
    """Return width and height.

    The oldest header has unsigned 16-bit numbers; in the others a negative height means that rows go down.
    """
    (header_length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_length == _CORE_HEADER_LENGTH else "<ii", data, 18)
    return abs(width), abs(height)
