"""Parse the blocks of a GIF file (GIF89a)."""

import struct
from collections.abc import Iterator
from typing import Final

from worker.vision.errors import VisionError

_MAX_HEADER_BYTES: Final = 1 << 16
"""The size is only read if the first frame begins within this many bytes. A GIF can begin with comments, and parsing
many short comments takes a long time."""


def check(data: bytes) -> int:
    """Verify that the file is complete, by parsing all blocks up to the trailer.

    :returns: the number of frames.
    :raises VisionError: ``corrupt``.
    :raises IndexError: the file is truncated.
    """
    return sum(1 for _ in _frames(data))


def read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of the logical screen, enlarged if necessary to contain the whole first frame.

    :raises StopIteration: there is no frame.
    """
    data = data[:_MAX_HEADER_BYTES]
    left, top, width, height = struct.unpack_from("<HHHH", data, next(_frames(data)) + 1)
    screen_width, screen_height = struct.unpack_from("<HH", data, 6)
    return max(screen_width, left + width), max(screen_height, top + height)


def _frames(data: bytes) -> Iterator[int]:
    """Yield the offset in the file at which each frame's image descriptor begins."""
    offset = 13 + _colour_table_length(data[10])
    while (kind := data[offset]) != 0x3B:
        if kind == 0x2C:
            yield offset
            offset += 11 + _colour_table_length(data[offset + 9])
        elif kind == 0x21:
            offset += 2
        else:
            raise VisionError("corrupt")
        while length := data[offset]:
            offset += 1 + length
        offset += 1


def _colour_table_length(flags: int) -> int:
    """Return the length of the colour table in bytes; 0 if the flags say that there is no table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
