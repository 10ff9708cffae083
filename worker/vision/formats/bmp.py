"""Parse the header of a BMP file."""

import struct
from typing import Final

from worker.vision.errors import VisionError

_CORE_HEADER_LENGTH: Final = 12
"""Length in bytes of the oldest type of header, BITMAPCOREHEADER. Each type of header is identified by its length."""


def check(data: bytes) -> int:
    """Verify that the header is complete.

    The pixels are not checked, because Pillow reports a missing row of pixels itself.

    :returns: the number of frames, 1.
    :raises VisionError: ``truncated``.
    """
    (header_length,) = struct.unpack_from("<I", data, 14)
    if 14 + header_length > len(data):
        raise VisionError("truncated")
    return 1


def read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels, which are never negative.

    The oldest type of header contains unsigned 16-bit numbers. In the other types, the numbers are signed, and a
    negative height means that the rows are stored from top to bottom. In this case, the sign is removed.
    """
    (header_length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_length == _CORE_HEADER_LENGTH else "<ii", data, 18)
    return abs(width), abs(height)
