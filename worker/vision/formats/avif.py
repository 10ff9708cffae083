"""An AVIF, from box to box (ISO/IEC 14496-12)."""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final

from worker.vision.errors import VisionError

_FIRST: Final = 16
_MOST: Final = 1 << 16
"""Boxes among which that of the items is looked for, and bytes that it may have: a size costs no walk through the file."""
_EXTENT: Final = re.compile(rb"ispe")
"""Of an item: its name is followed by four bytes, width and height (ISO/IEC 23008-12, 6.5.3)."""


def check(data: bytes) -> int:
    """From box to box. The last one may say no length; the decoder then misses what is not there."""
    if any(end > len(data) for _, _, end in _boxes(data)):
        raise VisionError("truncated")
    return 0


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height: the largest of its items, of which the picture is one. A film's are elsewhere."""
    first = {name: data[begin : min(end, begin + _MOST)] for name, begin, end in islice(_boxes(data), _FIRST)}
    items = first.get(b"meta", b"")
    if b"moov" in first or len(items) == _MOST:
        return None
    sizes: list[tuple[int, int]] = [struct.unpack_from(">II", items, found.end() + 4) for found in _EXTENT.finditer(items)]
    return max(sizes, key=lambda one: one[0] * one[1], default=None)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give name, begin and end of the outermost boxes, their headers included; the last may end behind the file."""
    at = 0
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if length == 0:
            length = len(data) - at
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
        if length < 8:
            raise VisionError("corrupt")
        yield name, at, at + length
        at += length
