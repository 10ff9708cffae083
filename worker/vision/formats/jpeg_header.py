"""Read and normalize the header of a JPEG file, which is everything before its first scan (ITU-T T.81, annex B)."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from worker.vision.errors import VisionError
from worker.vision.formats.jpeg import START_OF_SCAN, segments

_START_OF_IMAGE: Final = b"\xff\xd8"
_JFIF, _EXIF, _ICC, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_EXTENSIONS: Final = {0xC8, *range(0xF0, 0xFE)}
"""Markers that are reserved for extensions. No encoder writes them. Pillow does not skip the content of such a segment
but parses it as further segments."""
FRAMES: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_FRAMES: Final = {0xC0, 0xC1, 0xC9}
"""Markers of a frame header. In a sequential frame, a scan contains its components completely. In other frames, a scan
can contain only some of the coefficients or of their bits (ITU-T T.81, table B.1)."""
_HUFFMAN_SEQUENTIAL_FRAMES: Final = {0xC0, 0xC1}
_SEQUENTIAL_PARAMETERS: Final = b"\0\x3f\0"
"""The parameters of a scan that contains its components completely: the first coefficient, the last coefficient, and
the positions of the bits (ITU-T T.81, table B.3)."""
_ICC_HEADER: Final = b"ICC_PROFILE\0"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame header.

    ``width`` and ``height`` are in pixels. ``sampling`` holds the horizontal and the vertical sampling factor of each
    component.
    """

    is_sequential: bool
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]


def normalize(data: bytes) -> bytes:
    """Return a file that has the same pixels and metadata, and a header that all decoders understand in the same way.

    - Extension segments, and bytes between segments, are removed. Pillow parses the content of the former as further
      segments, and reads the latter one by one, which is slow.
    - The byte after the name of Exif data becomes zero. Browsers accept any value, and Pillow does not.
    - A colour profile that is not complete is removed.
    - Values that do not affect the pixels, and because of which libjpeg-turbo reports damage, are replaced: the revision
      of JFIF, an unknown colour transform of Adobe, and the parameters of a sequential scan of all components, which
      some cameras fill with zeros.

    The file is unchanged from the compressed pixels of the first scan on.

    :raises VisionError: ``truncated``; ``corrupt``.
    """
    frame, previous_end = None, 2
    kept: list[tuple[int, bytes]] = []
    for marker, begin, end in segments(data):
        if _START_OF_IMAGE in data[previous_end:begin]:
            raise VisionError("corrupt")  # no decoder accepts a second start marker
        previous_end = end
        if marker == START_OF_SCAN:
            scan = data[begin:end]
            if frame is not None and frame.is_sequential and scan[4] == len(frame.sampling):
                scan = with_sequential_parameters(scan)
            header = data[:2] + b"".join(_normalize_segment(*segment, frame) for segment in _without_incomplete_profile(kept)) + scan
            return data if data.startswith(header) else header + data[end:]
        if marker in FRAMES:
            frame = _read_frame(marker, data, begin)
        if marker not in _EXTENSIONS:
            kept.append((marker, data[begin:end]))
    return data[:2] + b"".join(segment for _, segment in kept)


def lacks_only_end(data: bytes) -> bool:
    """Return whether a JPEG without an end marker has the whole header of its only scan, which contains all components.

    If Huffman coding is used, a decoder notices missing pixels of such a scan. It does not notice missing scans, or that
    the pixels of an arithmetic code are missing.
    """
    frames: list[Frame] = []
    scans: list[bytes] = []
    try:
        for marker, begin, end in segments(data):
            if marker in FRAMES and marker not in _HUFFMAN_SEQUENTIAL_FRAMES:
                return False
            if marker in FRAMES:
                frames.append(_read_frame(marker, data, begin))
            if marker == START_OF_SCAN:
                scans.append(data[begin:end])
    except VisionError as error:
        is_single = len(frames) == len(scans) == 1
        return error.code == "truncated" and is_single and scans[0][4:5] == bytes([len(frames[0].sampling)])
    return False


def read_frame(data: bytes) -> Frame | None:
    """Return the first frame header; None if there is none before the first scan.

    :raises VisionError: ``truncated``; ``corrupt``.
    """
    for marker, begin, _ in segments(data):
        if marker in FRAMES:
            return _read_frame(marker, data, begin)
        if marker == START_OF_SCAN:
            break
    return None


def read_icc_profile(data: bytes) -> bytes:
    """Return the colour profile (ICC.1:2022, B.4); empty if it is missing or incomplete.

    :raises VisionError: ``truncated``; ``corrupt``.
    """
    parts = []
    for marker, begin, end in segments(data):
        if marker == START_OF_SCAN:
            break
        if _is_profile_part(marker, data[begin:end]):
            parts.append(data[begin:end])
    return b"".join(part[18:] for part in sorted(parts, key=_part_number)) if _is_complete(parts) else b""


def with_sequential_parameters(scan_header: bytes) -> bytes:
    """Return a start-of-scan segment with the parameters that it must have in a sequential frame."""
    return scan_header[:-3] + _SEQUENTIAL_PARAMETERS


def _read_frame(marker: int, data: bytes, offset: int) -> Frame:
    height, width, count = struct.unpack_from(">HHB", data.ljust(offset + 10, b"\0"), offset + 5)
    factors = data[offset + 11 : offset + 10 + 3 * count : 3]
    return Frame(marker in _SEQUENTIAL_FRAMES, width, height, tuple((factor >> 4, factor & 15) for factor in factors))


def _normalize_segment(marker: int, segment: bytes, frame: Frame | None) -> bytes:
    if marker == _JFIF and segment[4:9] == b"JFIF\0" and len(segment) > 9:
        return segment[:9] + b"\1" + segment[10:]
    if marker == _EXIF and segment[4:9] == b"Exif\0" and len(segment) > 9:
        return segment[:9] + b"\0" + segment[10:]
    if marker == _ADOBE and segment[4:9] == b"Adobe" and len(segment) > 15 and segment[15] > 2:
        # libjpeg-turbo decodes an unknown colour transform like the following one.
        transform = b"\2" if frame is not None and len(frame.sampling) == 4 else b"\1"
        return segment[:15] + transform + segment[16:]
    return segment


def _without_incomplete_profile(kept: list[tuple[int, bytes]]) -> Iterable[tuple[int, bytes]]:
    parts = [segment for marker, segment in kept if _is_profile_part(marker, segment)]
    return (
        kept
        if _is_complete(parts)
        else [(marker, segment) for marker, segment in kept if not _is_profile_part(marker, segment)]
    )


def _is_profile_part(marker: int, segment: bytes) -> bool:
    return marker == _ICC and segment[4:16] == _ICC_HEADER and len(segment) >= 18


def _part_number(part: bytes) -> int:
    return part[16]


def _is_complete(parts: list[bytes]) -> bool:
    """Return whether the parts of a colour profile, in any order, have the numbers from 1 to their count."""
    return sorted(part[16:18] for part in parts) == [bytes([number, len(parts)]) for number in range(1, len(parts) + 1)]
