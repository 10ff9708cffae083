"""The header of a BMP."""

import struct
from typing import Final

from worker.vision.errors import VisionError

_OLDEST: Final = 12
"""Length of the header that tells it."""


def check(data: bytes) -> int:
    """Its header only: Pillow insists on every row."""
    (header,) = struct.unpack_from("<I", data, 14)
    if 14 + header > len(data):
        raise VisionError("truncated")
    return 1


def size(data: bytes) -> tuple[int, int]:
    """Width and height: the oldest header has numbers of 16 bits; in others a height below zero says that rows go down."""
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == _OLDEST else "<ii", data, 18)
    return abs(width), abs(height)
