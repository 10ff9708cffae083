"""Parse the marker segments of a JPEG file (ITU-T T.81, annex B)."""

import re
from collections.abc import Iterator
from typing import Final

from worker.vision.errors import VisionError

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker with a length, or the end of the image; not a stuffed zero, a restart marker, a fill byte or a start of
image (ITU-T T.81, B.1.1)."""
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_EXTENSIONS: Final = {0xC8, *range(0xF0, 0xFE)}
"""Markers reserved for extensions, which no encoder writes. Pillow parses the content of such a segment as further
segments."""
_MAX_SEGMENTS: Final = 512
"""Limit for any JPEG: Pillow concatenates Exif segments one by one, copying all of them each time. A colour profile may
take 255 segments (ICC.1:2022, B.4), a camera writes about 20."""
_MAX_SCANS: Final = 100
"""Limit for any JPEG: each scan may be a pass over all pixels for a few bytes. Cameras write one, progressive encoders
about ten."""
_MAX_PLAIN_SEGMENTS: Final = 100
_MAX_PLAIN_SCANS: Final = 32


def check(data: bytes) -> int:
    """Parse all segments up to the end marker.

    A JPEG that is truncated between scans decodes without an error, but lacks that marker.

    :returns: the number of frames, 1.
    :raises VisionError: ``truncated``; ``corrupt`` also for too many segments or scans.
    """
    if sum(marker == _START_OF_SCAN for marker, _, _ in _segments(data)) > _MAX_SCANS:
        raise VisionError("corrupt")
    return 1


def is_plain(data: bytes) -> bool:
    """Return whether a JPEG is complete and has no more segments and scans than cameras and ordinary encoders write."""
    try:
        markers = [marker for marker, _, _ in _segments(data)]
    except VisionError:
        return False
    return len(markers) <= _MAX_PLAIN_SEGMENTS and markers.count(_START_OF_SCAN) <= _MAX_PLAIN_SCANS


def remove_unneeded(data: bytes) -> bytes:
    """Return the file without extension segments and without bytes between segments.

    Pillow reads such bytes one by one. Only the part before the first scan is filtered.

    :raises VisionError: ``truncated``; ``corrupt``.
    """
    kept = bytearray(data[:2])
    for marker, begin, end in _segments(data):
        if marker == _START_OF_SCAN:
            return bytes(kept) + data[begin:]
        if marker not in _EXTENSIONS:
            kept += data[begin:end]
    return bytes(kept)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of each segment, up to the end marker.

    The entropy-coded data of a scan follow its segment.
    """
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, offset)
        if match is None:
            raise VisionError("truncated")
        marker, offset = match[0][1], match.end()
        if marker != _END_OF_IMAGE:
            offset += int.from_bytes(data[offset : offset + 2], "big")
        yield marker, match.start(), offset
        if marker == _END_OF_IMAGE:
            return
    raise VisionError("corrupt")
