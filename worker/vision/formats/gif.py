"""A GIF, from block to block (GIF89a)."""

import struct
from collections.abc import Iterator
from typing import Final

from worker.vision.errors import VisionError

_HEADER: Final = 1 << 16
"""Bytes that a size is looked for in. A GIF may begin with texts; to walk through many short ones takes its time."""


def check(data: bytes) -> int:
    """From block to block to the trailer."""
    return sum(1 for _ in _frames(data))


def size(data: bytes) -> tuple[int, int]:
    """Width and height: the screen, and what of the first frame reaches beyond it."""
    data = data[:_HEADER]
    left, top, width, height = struct.unpack_from("<HHHH", data, next(_frames(data)) + 1)
    across, down = struct.unpack_from("<HH", data, 6)
    return max(across, left + width), max(down, top + height)


def _frames(data: bytes) -> Iterator[int]:
    """Give the place of each frame's descriptor."""
    at = 13 + _colours(data[10])
    while (kind := data[at]) != 0x3B:
        if kind == 0x2C:
            yield at
            at += 11 + _colours(data[at + 9])
        elif kind == 0x21:
            at += 2
        else:
            raise VisionError("corrupt")
        while length := data[at]:
            at += 1 + length
        at += 1


def _colours(flags: int) -> int:
    """Give the length of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
