"""Parse the marker segments of a JPEG file (ITU-T T.81, annex B)."""

import re
from collections.abc import Iterator
from typing import Final

from worker.vision.errors import VisionError

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""Matches a marker that has a length, or the marker for the end of the image. It does not match a stuffed zero, a
restart marker, a fill byte, or the marker for the start of the image (ITU-T T.81, B.1.1)."""
START_OF_SCAN: Final = 0xDA
END_OF_IMAGE: Final = 0xD9
_MAX_SEGMENTS: Final = 512
"""Limit for the segments of any JPEG. It is necessary because Pillow appends Exif segments one by one, and copies all
previous segments each time. A colour profile can have 255 segments (ICC.1:2022, B.4), and a camera writes about 20."""
_MAX_SCANS: Final = 100
"""Limit for the scans of any JPEG. It is necessary because a scan of a few bytes can require a pass over all pixels.
Cameras write one scan, and progressive encoders write about ten."""
_MAX_PLAIN_SEGMENTS: Final = 100
_MAX_PLAIN_SCANS: Final = 32


def check(data: bytes) -> int:
    """Verify that the file is complete, by parsing all segments up to the end marker.

    This is necessary because a decoder reports no error if a JPEG is truncated between two scans. In such a file, the
    end marker is missing.

    :returns: the number of frames, 1.
    :raises VisionError: ``truncated``; ``corrupt``, also if there are too many segments or scans.
    """
    if sum(marker == START_OF_SCAN for marker, _, _ in segments(data)) > _MAX_SCANS:
        raise VisionError("corrupt")
    return 1


def is_plain(data: bytes) -> bool:
    """Return whether a JPEG is complete, and has no more segments and scans than cameras and usual encoders write."""
    try:
        markers = [marker for marker, _, _ in segments(data)]
    except VisionError:
        return False
    return len(markers) <= _MAX_PLAIN_SEGMENTS and markers.count(START_OF_SCAN) <= _MAX_PLAIN_SCANS


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment and the offsets at which the segment begins and ends, up to the end marker.

    The compressed pixels of a scan follow its start-of-scan segment, but are not part of any segment. So the end of a
    start-of-scan segment is not the begin of the next segment.
    """
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, offset)
        if match is None:
            raise VisionError("truncated")
        marker, offset = match[0][1], match.end()
        if marker != END_OF_IMAGE:
            offset += int.from_bytes(data[offset : offset + 2], "big")
        yield marker, match.start(), offset
        if marker == END_OF_IMAGE:
            return
    raise VisionError("corrupt")
