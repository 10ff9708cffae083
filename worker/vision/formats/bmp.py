"""Parse the header of a BMP file."""

import struct
from typing import Final

from worker.vision.errors import VisionError

_CORE_HEADER_LENGTH: Final = 12
"""Length in bytes of the oldest type of header, BITMAPCOREHEADER. Each type of header is identified by its length."""
_V5_HEADER_LENGTH: Final = 124
_EMBEDDED: Final = b"DEBM"
"""The type of colour space, PROFILE_EMBEDDED, of a file that contains a colour profile."""


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


def read_icc_profile(data: bytes, max_bytes: int) -> bytes:
    """Return the colour profile in the file; empty if it is missing, incomplete, or longer than ``max_bytes``.

    :param data: a file that passed ``check``.
    """
    if struct.unpack_from("<I", data, 14) != (_V5_HEADER_LENGTH,) or data[70:74] != _EMBEDDED:
        return b""
    offset, length = struct.unpack_from("<II", data, 126)
    profile = data[14 + offset : 14 + offset + min(length, max_bytes)]
    return profile if len(profile) == length else b""


def read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels, which are never negative.

    The oldest type of header contains unsigned 16-bit numbers. In the other types, the numbers are signed, and a
    negative height means that the rows are stored from top to bottom. In this case, the sign is removed.
    """
    (header_length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_length == _CORE_HEADER_LENGTH else "<ii", data, 18)
    return abs(width), abs(height)
