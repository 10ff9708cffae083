"""Remove padding from the compressed pixels of a JPEG file.

Some cameras write zeros at the end of a scan, or before each restart marker. No pixel is affected, but libjpeg-turbo
reports the zeros as damage, in the same way as pixels that were skipped because of damage. So nothing but zeros is
removed, and the caller decodes the result strictly.
"""

import re
import struct
from collections.abc import Callable
from typing import Final

from worker.vision.formats.jpeg import END_OF_IMAGE, START_OF_SCAN, segments
from worker.vision.formats.jpeg_header import FRAMES, Frame, read_frame, with_sequential_parameters

_RESTART: Final = re.compile(rb"\xff+([\xd0-\xd7])")
"""Matches a restart marker with the fill bytes in front of it (ITU-T T.81, B.1.1.2)."""
_RESTART_INTERVAL: Final = 0xDD
_METADATA: Final = {*range(0xE1, 0xEE), 0xEF, 0xFE}
"""Markers of segments that do not affect the pixels, unlike those of JFIF and Adobe, which name the colour space."""
_MAX_SIDE: Final = 65_500
_MAX_INTERVALS: Final = 20_000
"""Limit for the restart intervals, because each of them can be decoded on its own. A photo of 12 megapixels with an
interval of one row of blocks has 190."""
_MAX_NEEDED_ZEROS: Final = 3
"""Limit for the zeros at the end of an interval that belong to the pixels. With the usual Huffman tables, an unchanged
colour has eight zero bits. With other tables, a whole area can have zero bits, in which damage would not be noticed."""
_MIN_PADDED_SHARE: Final = 0.25
"""Smallest share of the intervals before restart markers that are padded if a camera pads them. If there are fewer,
zeros remained because of damage. A camera that pads to an even number of bytes pads half of them."""
_END: Final = bytes([0xFF, END_OF_IMAGE])

HashPixels = Callable[[bytes], bytes | None]
"""Return a hash of a JPEG's pixels; None if the file is damaged, for example, if its data end before the last pixel."""


def remove_padding(data: bytes, hash_pixels: HashPixels) -> bytes:
    """Return a file without the padding in its last scan, and without the bytes that do not belong to a segment.

    What follows the last scan is removed, too. In a sequential frame, the parameters of the scans are normalized.

    A zero before a marker is either padding or a part of the pixels. So parts of the file are decoded with more or fewer
    zeros, to find out how many of them the pixels need.

    :param data: a file that ``jpeg_header.normalize`` returned.
    :raises VisionError: ``truncated``; ``corrupt``.
    """
    frame, found = read_frame(data), list(segments(data))
    scans = [index for index, (marker, _, _) in enumerate(found) if marker == START_OF_SCAN]
    if frame is None or not scans:
        return data
    is_sequential = frame.is_sequential and _are_disjoint([data[found[index][1] : found[index][2]] for index in scans])
    parts = [data[:2]]
    for index, (marker, begin, end) in enumerate(found[: scans[-1] + 1]):
        is_scan, segment = marker == START_OF_SCAN, data[begin:end]
        parts.append(with_sequential_parameters(segment) if is_scan and is_sequential else segment)
        if is_scan and index != scans[-1]:
            parts.append(data[end : found[index + 1][1]])
    compressed = data[found[scans[-1]][2] : found[scans[-1] + 1][1]].rstrip(b"\xff")
    if is_sequential and len(scans) == 1 and _RESTART.search(compressed):
        compressed = _trim_intervals(compressed, parts[1:], frame, hash_pixels)
    else:
        compressed = _trim(compressed, b"".join(parts), hash_pixels)
    return b"".join(parts) + compressed + _END


def _are_disjoint(scan_headers: list[bytes]) -> bool:
    """Return whether no component occurs in several scans, as in every sequential file."""
    components = [component for header in scan_headers for component in header[5 : 5 + 2 * header[4] : 2]]
    return len(components) == len(set(components))


def _trim_intervals(compressed: bytes, header: list[bytes], frame: Frame, hash_pixels: HashPixels) -> bytes:
    """Remove the padding from each restart interval of a scan. Each interval is decoded on its own.

    A restart marker after the last pixel is removed, too.

    :param header: the segments of the file's header, including that of the scan.
    :returns: ``compressed`` itself if there are too many intervals or not as many as there should be, or if only few of
        them are padded.
    """
    first, *rest = _RESTART.split(compressed)
    intervals, markers = [first, *rest[1::2]], [b"\xff" + code for code in rest[::2]]
    if not intervals[-1].strip(b"\0"):
        del intervals[-1], markers[-1]
    headers = _interval_headers(header, frame, len(intervals))
    trimmed = [_trim(*pair, hash_pixels) for pair in zip(intervals, headers, strict=False)]
    padded = sum(shorter != interval for shorter, interval in zip(trimmed[:-1], intervals, strict=False))
    if len(trimmed) != len(intervals) or 0 < padded < _MIN_PADDED_SHARE * len(markers):
        return compressed
    return b"".join(part for pair in zip(trimmed, [*markers, b""], strict=True) for part in pair)


def _trim(interval: bytes, header: bytes, hash_pixels: HashPixels) -> bytes:
    """Return compressed pixels without the padding at their end.

    The last bytes of the pixels are zero if the last block has an unchanged colour, and if its bits end with the byte;
    otherwise, the rest of the byte would be filled with one bits (ITU-T T.81, F.1.2.3). If the pixels end elsewhere
    within the zeros, the reason is damage.

    :param header: everything that precedes the compressed pixels in a file that contains no others.
    :returns: ``interval`` itself if there is no padding, or if it is damaged.
    """
    core = interval.rstrip(b"\0")
    if core.endswith(b"\xff"):  # the zero after FF is not padding
        core = interval[: len(core) + 1]
    if core == interval:
        return interval
    most = min(len(interval) - len(core), _MAX_NEEDED_ZEROS)
    for needed in range(most + 1):
        pixels = hash_pixels(header + core + bytes(needed) + _END)
        if pixels is None:
            continue
        if needed == 0:
            return core
        with_another_bit = hash_pixels(header + core + bytes(needed - 1) + b"\1" + _END)
        return core + bytes(needed) if with_another_bit != pixels else interval
    return interval


def _interval_headers(header: list[bytes], frame: Frame, count: int) -> list[bytes]:
    """Return the header of a file for each restart interval, so that its pixels can be decoded alone.

    :param header: the segments of the file's header.
    :param count: the number of intervals in the file.
    :returns: an empty list if the file should have another number of intervals, if there are too many of them, or if an
        interval does not fit into an image.
    """
    # A scan of one component has blocks of 8 x 8 pixels, whatever its sampling factors are (ITU-T T.81, A.2.2).
    sampling = frame.sampling if len(frame.sampling) > 1 else []
    across, down = (8 * max([1, *(factors[axis] for factors in sampling)]) for axis in (0, 1))
    row = -(-frame.width // across)
    total = row * -(-frame.height // down)
    restarts = [int.from_bytes(segment[4:6], "big") for segment in header if segment[1] == _RESTART_INTERVAL]
    interval = (restarts or [0])[-1] or total
    if not total > 0 or count != -(-total // interval) or count > _MAX_INTERVALS:
        return []
    needed = [segment for segment in header if segment[1] not in _METADATA]

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
        return b"\xff\xd8" + b"".join(resized)

    inner, last = build(min(interval, total)), build(total - (count - 1) * interval)
    return [*[inner] * (count - 1), last] if inner and last else []
