"""An AVIF, from box to box (ISO/IEC 14496-12)."""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final

from worker.vision.errors import VisionError

_FEW: Final = 16
"""Boxes of a file whose size is looked for. Cameras and encoders write three."""
_MOST: Final = 1 << 16
"""Bytes of the box of its items."""
_EXTENT: Final = re.compile(rb"\0\0\0\x14ispe")
"""Of an item: length and name are followed by four bytes, width and height (ISO/IEC 23008-12, 6.5.3)."""


def check(data: bytes) -> int:
    """From box to box. The last one may say no length; the decoder then misses what is not there."""
    if any(end > len(data) for _, _, end in _boxes(data)):
        raise VisionError("truncated")
    return 0


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height: the largest of its items, of which the picture is one. None for a film, or where a decoder may find others."""
    boxes = list(islice(_boxes(data), _FEW))
    items = [data[begin : min(end, begin + _MOST)] for name, begin, end in boxes if name == b"meta"]
    if len(boxes) == _FEW or len(items) != 1 or len(items[0]) == _MOST or any(name == b"moov" for name, _, _ in boxes):
        return None
    if items[0].count(b"ispe") != len(_EXTENT.findall(items[0])):
        return None
    sizes: list[tuple[int, int]] = [struct.unpack_from(">II", items[0], found.end() + 4) for found in _EXTENT.finditer(items[0])]
    return max(sizes, key=lambda one: one[0] * one[1], default=None)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give name, begin and end of the outermost boxes, their headers included; the last may end behind the file."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        if length == 0:
            yield name, at, len(data)
            return
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
        if length < 8:
            raise VisionError("corrupt")
        yield name, at, at + length
        at += length
