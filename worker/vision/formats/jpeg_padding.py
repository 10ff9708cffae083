"""Remove padding from the compressed pixels of a JPEG file.

Some cameras write zeros, or repeat another byte, at the end of a scan or before each restart marker. No pixel is
affected, but libjpeg-turbo reports these bytes as damage, in the same way as pixels that were skipped because of damage.
So nothing but repetitions of one byte is removed, and the caller decodes the result strictly.
"""

from itertools import pairwise

from worker.vision.errors import VisionError
from worker.vision.formats import jpeg_restarts, jpeg_scans
from worker.vision.formats.jpeg import START_OF_SCAN, segments
from worker.vision.formats.jpeg_header import Frame, read_frame, with_sequential_parameters
from worker.vision.formats.jpeg_scans import END, START, HashPixels, Scan


def remove_padding(data: bytes, hash_pixels: HashPixels) -> bytes:
    """Return a file without the padding in its scans, and without the bytes that do not belong to a segment.

    What follows the last scan is removed, too. In a sequential frame, the parameters of the scans are normalized. If the
    end marker is missing, it is appended.

    A zero before a marker is either padding or a part of the pixels. So parts of the file are decoded with more or fewer
    zeros, to find out how many of them the pixels need. The number of attempts is limited: a scan or a restart
    interval is decoded at most five times on its own, and several scans are decoded 160 times altogether.

    :param data: a file that ``jpeg_header.normalize`` returned. If its end marker is missing, it must have passed
        ``jpeg_header.lacks_only_end``.
    :raises VisionError: ``truncated``; ``corrupt``.
    """
    data, is_cut = _with_end(data)
    frame, scans = read_frame(data), _split_scans(data)
    if frame is None or not scans:
        return data
    if frame.is_sequential and _are_disjoint([scan.header for scan in scans]):
        for scan in scans:
            scan.header = with_sequential_parameters(scan.header)
    trimmed = _trim(frame, scans, hash_pixels, is_cut=is_cut)
    if trimmed is None and is_cut:
        raise VisionError("truncated")
    trimmed = [scan.compressed for scan in scans] if trimmed is None else trimmed
    return START + b"".join(scan.start + pixels for scan, pixels in zip(scans, trimmed, strict=True)) + END


def _trim(frame: Frame, scans: list[Scan], hash_pixels: HashPixels, *, is_cut: bool) -> list[bytes] | None:
    scan = scans[0]
    if len(scans) > 1:
        return jpeg_scans.trim_all(scans, hash_pixels)
    if frame.is_sequential and jpeg_restarts.contains_restarts(scan.compressed):
        pixels = jpeg_restarts.trim(scan, frame, hash_pixels, is_cut=is_cut)
    else:
        pixels = jpeg_scans.trim(scan.compressed, START + scan.start, hash_pixels, is_cut=is_cut)
    return None if pixels is None else [pixels]


def _with_end(data: bytes) -> tuple[bytes, bool]:
    """Return a file with an end marker, and whether it had none."""
    try:
        for _ in segments(data):
            pass
    except VisionError as error:
        if error.code == "truncated":
            return data + END, True
        raise
    return data, False


def _split_scans(data: bytes) -> list[Scan]:
    scans: list[Scan] = []
    kept: list[bytes] = []
    for (marker, begin, end), (_, following, _) in pairwise(segments(data)):
        if marker != START_OF_SCAN:
            kept.append(data[begin:end])
            continue
        scans.append(Scan(kept, data[begin:end], data[end:following].rstrip(b"\xff")))
        kept = []
    return scans


def _are_disjoint(scan_headers: list[bytes]) -> bool:
    """Return whether no component occurs in several scans, as in every sequential file."""
    components = [component for header in scan_headers for component in header[5 : 5 + 2 * header[4] : 2]]
    return len(components) == len(set(components))
