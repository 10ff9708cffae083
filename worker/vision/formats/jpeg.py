"""A JPEG, from marker to marker (ITU T.81, annex B)."""

import re
from collections.abc import Iterator
from typing import Final

from worker.vision.errors import VisionError

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker with a length, or the end: no stuffed zero, restart, fill byte or start of image (ITU T.81, B.1.1)."""
_START_OF_SCAN: Final = 0xDA
_END: Final = 0xD9
_UNREAD: Final = {0xC8, *range(0xF0, 0xFE)}
"""Markers for extensions that nobody wrote. Pillow takes what such a segment holds for more segments."""
_MOST_SEGMENTS: Final = 512
"""Of a JPEG: Pillow joins those of Exif one by one, each time anew. A colour profile may take 255 (ICC.1:2022, B.4), a camera about 20."""
_MOST_SCANS: Final = 100
"""Of a JPEG: each may be a pass over all pixels for a few bytes. Cameras write one, progressive encoders about ten."""
_PLAIN_SEGMENTS: Final = 100
_PLAIN_SCANS: Final = 32


def check(data: bytes) -> int:
    """From marker to marker: one that is cut short between its scans decodes without a complaint, but lacks its end marker."""
    if sum(marker == _START_OF_SCAN for marker, _, _ in _segments(data)) > _MOST_SCANS:
        raise VisionError("corrupt")
    return 1


def is_plain(data: bytes) -> bool:
    """Say whether a JPEG is whole and has no more segments and scans than cameras and ordinary encoders write."""
    try:
        markers = [marker for marker, _, _ in _segments(data)]
    except VisionError:
        return False
    return len(markers) <= _PLAIN_SEGMENTS and markers.count(_START_OF_SCAN) <= _PLAIN_SCANS


def needed(data: bytes) -> bytes:
    """Leave out what lies between the segments in front of the pixels: Pillow reads that byte by byte."""
    kept = bytearray(data[:2])
    for marker, begin, end in _segments(data):
        if marker == _START_OF_SCAN:
            return bytes(kept) + data[begin:]
        if marker not in _UNREAD:
            kept += data[begin:end]
    return bytes(kept)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Give marker, begin and end of the segments of a JPEG, up to its end's own. A scan's pixels follow its segment."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            raise VisionError("truncated")
        marker, at = found[0][1], found.end()
        if marker != _END:
            at += int.from_bytes(data[at : at + 2], "big")
        yield marker, found.start(), at
        if marker == _END:
            return
    raise VisionError("corrupt")
