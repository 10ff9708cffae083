"""Find the padding in front of the restart markers of a JPEG file (ITU-T T.81, E.1.4)."""

import re
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from worker.vision.formats import jpeg_scans
from worker.vision.formats.jpeg_header import FRAMES, Frame
from worker.vision.formats.jpeg_scans import END, START, ZERO, HashPixels, Scan

_RESTART: Final = re.compile(rb"(?<!\xff)\xff+([\xd0-\xd7])")
"""Matches a restart marker with all fill bytes in front of it (ITU-T T.81, B.1.1.2). No match begins within fill bytes:
otherwise, the search would take more time than in proportion to the length of the file."""
_RESTART_INTERVAL: Final = 0xDD
_METADATA: Final = {*range(0xE0, 0xF0), 0xFE}
"""Markers of segments that do not affect whether the pixels can be decoded."""
_MAX_SIDE: Final = 65_500
_MAX_INTERVALS: Final = 20_000
"""Limit for the restart intervals that are decoded one by one. A photo of 12 megapixels with an interval of one row of
blocks has 190."""
_MAX_HEADER_BYTES: Final = 16 * 1024**2
"""Limit for the number of intervals times the length of the header, which is repeated for each interval. A header has
about 600 bytes without its metadata."""
_MIN_PADDED_SHARE: Final = 0.25
"""Smallest share of the intervals before restart markers that are padded if a camera pads them with zeros. If there are
fewer, zeros remained because of damage. A camera that pads to an even number of bytes pads half of them."""
_MIN_OTHERS_SHARE: Final = 0.9
_MIN_OTHERS_MARKERS: Final = 4
"""The share for a byte other than zero, and the smallest number of restart markers. This byte is the last one of most
intervals only if it is padding. If there are few markers, it can also be the last byte of the pixels."""


def contains_restarts(compressed: bytes) -> bool:
    """Return whether there is a restart marker in compressed pixels."""
    return _RESTART.search(compressed) is not None


def trim(scan: Scan, frame: Frame, hash_pixels: HashPixels, *, is_cut: bool) -> bytes | None:
    """Return the compressed pixels of a file's only scan without the padding in its restart intervals.

    If pixels need the zeros at the end of an interval, each interval is decoded on its own. A restart marker after the
    last pixel is removed, too.

    :param is_cut: see ``jpeg_scans.trim``.
    :returns: None if there is damage, if there are not as many intervals as there should be, or if there are too many
        of them.
    """
    first, *rest = _RESTART.split(scan.compressed)
    intervals, markers = [first, *rest[1::2]], [b"\xff" + code for code in rest[::2]]
    if not intervals[-1].strip(ZERO):
        del intervals[-1], markers[-1]
    headers = _interval_headers(scan, frame, len(intervals))
    if headers is None:
        return None
    last = jpeg_scans.trim(intervals.pop(), headers[1], hash_pixels, is_cut=is_cut)
    if last is None:
        return None

    def join(parts: list[bytes]) -> bytes:
        return b"".join(part for pair in zip([*parts, last], [*markers, b""], strict=True) for part in pair)

    def is_decodable(parts: list[bytes]) -> bool:
        return hash_pixels(START + scan.start + join(parts) + END) is not None

    trimmed = _trim_inner(intervals, headers[0], hash_pixels, is_decodable)
    return None if trimmed is None else join(trimmed)


def _trim_inner(
    intervals: list[bytes], header: bytes, hash_pixels: HashPixels, is_decodable: Callable[[list[bytes]], bool]
) -> list[bytes] | None:
    """Remove the padding from the intervals before restart markers.

    :param header: see ``_interval_headers``.
    :param is_decodable: returns whether the scan can be decoded with these intervals.
    :returns: ``intervals`` itself if too few of them are padded; None if there is damage, or if there are too many.
    """
    unit = _find_unit(intervals)
    least = max(1, (_MIN_PADDED_SHARE if unit == ZERO else _MIN_OTHERS_SHARE) * len(intervals))
    endings = [jpeg_scans.split_padding(interval, unit=unit) for interval in intervals]
    if sum(ending.count > 0 for ending in endings) < least:
        return intervals
    shortest = [ending.core for ending in endings]
    if is_decodable(shortest):
        return shortest
    if len(intervals) > _MAX_INTERVALS or len(intervals) * len(header) > _MAX_HEADER_BYTES:
        return None
    trimmed = []
    for interval in intervals:
        pixels = jpeg_scans.trim(interval, header, hash_pixels, unit=unit)
        if pixels is None:
            return None
        trimmed.append(pixels)
    padded = sum(shorter != interval for shorter, interval in zip(trimmed, intervals, strict=True))
    return trimmed if padded >= least else intervals


def _find_unit(intervals: list[bytes]) -> bytes:
    """Return the unit that the padding in front of the restart markers consists of, if there is padding."""
    (unit, count), *_ = [*Counter(map(jpeg_scans.last_unit, intervals)).most_common(1), (ZERO, 0)]
    is_padding = len(intervals) >= _MIN_OTHERS_MARKERS and count >= _MIN_OTHERS_SHARE * len(intervals)
    return unit if is_padding and unit else ZERO


def _interval_headers(scan: Scan, frame: Frame, count: int) -> tuple[bytes, bytes] | None:
    """Return the headers of files that contain only one restart interval: any except the last one, and the last one.

    :param count: the number of intervals in the scan.
    :returns: None if there should be another number of intervals, or if an interval does not fit into an image.
    """
    # A scan of one component has blocks of 8 x 8 pixels, whatever its sampling factors are (ITU-T T.81, A.2.2).
    sampling = frame.sampling if len(frame.sampling) > 1 else []
    across, down = (8 * max([1, *(factors[axis] for factors in sampling)]) for axis in (0, 1))
    row = -(-frame.width // across)
    total = row * -(-frame.height // down)
    restarts = [int.from_bytes(segment[4:6], "big") for segment in scan.segments if segment[1] == _RESTART_INTERVAL]
    interval = (restarts or [0])[-1] or total
    if not total > 0 or count != -(-total // interval):
        return None
    needed = [segment for segment in (*scan.segments, scan.header) if segment[1] not in _METADATA]

    def build(blocks: int) -> bytes:
        if blocks == total:
            width, height = frame.width, frame.height
        elif blocks % row == 0:
            width, height = frame.width, down * (blocks // row)
        else:
            width, height = across * blocks, down
        if max(width, height) > _MAX_SIDE:
            return b""
        size = struct.pack(">HH", height, width)
        resized = [segment[:5] + size + segment[9:] if segment[1] in FRAMES else segment for segment in needed]
        return START + b"".join(resized)

    inner, last = build(min(interval, total)), build(total - (count - 1) * interval)
    return (inner, last) if inner and last else None
