"""Parse the boxes of an AVIF file (ISO/IEC 14496-12)."""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final

from worker.vision.errors import VisionError

_MAX_BOXES: Final = 16
"""The size is not read from a file with this many top-level boxes or more. Cameras and encoders write three."""
_MAX_META_BYTES: Final = 1 << 16
"""The size is not read from a ``meta`` box with this length in bytes or more."""
_SPATIAL_EXTENT: Final = re.compile(rb"\0\0\0\x14ispe")
"""Matches the length and the name of an item's ``ispe`` property. After them, the property contains four bytes, the
width, and the height (ISO/IEC 23008-12, 6.5.3)."""

_CODE_POINTS: Final = re.compile(rb"\0\0\0\x13colrnclx.{7}", re.DOTALL)
"""Matches an image's ``colr`` property with code points of ITU-T H.273."""


def check(data: bytes) -> int:
    """Verify that all boxes end within the file.

    The last box can have the length 0, which means that it extends to the end of the file. In this case, only the
    decoder detects that the file is truncated.

    :returns: 0, because the decoder counts the frames.
    :raises VisionError: ``truncated``; ``corrupt``.
    """
    if any(end > len(data) for _, _, end in _boxes(data)):
        raise VisionError("truncated")
    return 0


def read_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height of the largest item in the file.

    The image that is decoded is one of the items, so it has at most as many pixels as the largest item.

    :returns: None for an image sequence, or if a decoder could find items that this function does not find.
    """
    boxes, metas = _read_metas(data)
    if len(boxes) == _MAX_BOXES or len(metas) != 1 or len(metas[0]) == _MAX_META_BYTES or b"moov" in boxes:
        return None
    (meta,) = metas
    if meta.count(b"ispe") != len(_SPATIAL_EXTENT.findall(meta)):
        return None
    sizes: list[tuple[int, int]] = [struct.unpack_from(">II", meta, match.end() + 4) for match in _SPATIAL_EXTENT.finditer(meta)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def read_code_points(data: bytes) -> tuple[int, int] | None:
    """Return the code points of the primaries and of the transfer characteristics (ISO/IEC 14496-12, 12.1.5).

    :param data: a file that passed ``check``.
    :returns: None if there are none in the first ``meta`` box.
    """
    _, metas = _read_metas(data)
    match = _CODE_POINTS.search(metas[0]) if metas else None
    return struct.unpack_from(">HH", match[0], 12) if match else None


def _read_metas(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the names of the first top-level boxes, and the beginning of each of them that is named ``meta``."""
    boxes = list(islice(_boxes(data), _MAX_BOXES))
    metas = [data[begin : min(end, begin + _MAX_META_BYTES)] for name, begin, end in boxes if name == b"meta"]
    return [name for name, _, _ in boxes], metas


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each top-level box, and the offsets at which the box begins and ends.

    The box begins with its header.
    In a truncated file, the end of the last box is beyond the end of the file.
    """
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        name = data[offset + 4 : offset + 8]
        if length == 0:
            yield name, offset, len(data)
            return
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, offset + 8)
        if length < 8:
            raise VisionError("corrupt")
        yield name, offset, offset + length
        offset += length
