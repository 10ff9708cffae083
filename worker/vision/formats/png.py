"""Parse the chunks of a PNG file (PNG, third edition, W3C 2025)."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from worker.vision.errors import VisionError

_HEADER_OFFSET: Final = 16
"""Offset of the data of the first chunk."""
_PIXEL_CHUNKS: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type (PNG, 11.2.1)."""
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and the steps to the next column and row (PNG, 8.1)."""
_MAX_INFLATED_BYTES: Final = 1 << 20
"""Limit of the output of one decompression step."""


def check(data: bytes) -> int:
    """Parse all chunks, and verify the checksums of those that a decoder needs.

    Pillow does not verify those of the pixels.

    :returns: the number of frames.
    :raises VisionError: ``corrupt``.
    :raises struct.error: the file is truncated.
    """
    view, frames = memoryview(data), 0
    for name, begin, end in _chunks(data):
        (checksum,) = struct.unpack_from(">I", data, end)
        if name[:1].isupper() and zlib.crc32(view[begin - 4 : end]) != checksum:
            raise VisionError("corrupt")
        if name == b"IHDR" and begin != _HEADER_OFFSET:  # of two headers a decoder might use the other one
            raise VisionError("corrupt")
        frames += name == b"fcTL"
    return max(1, frames)


def remove_unneeded(data: bytes) -> bytes:
    """Return the file with only the chunks that determine the pixels and the orientation.

    Pillow fails on a long text chunk or a short gamma chunk.
    """
    view, kept = memoryview(data), bytearray(data[:8])
    with suppress(struct.error):  # a truncated file, which `check` reports
        for name, begin, end in _chunks(data):
            (checksum,) = struct.unpack_from(">I", data, end)
            if name in _PIXEL_CHUNKS or (name == b"eXIf" and zlib.crc32(view[begin - 4 : end]) == checksum):
                kept += view[begin - 8 : end + 4]
    return bytes(kept)


def read_icc_profile(data: bytes, max_bytes: int) -> bytes:
    """Inflate the colour profile (PNG, 11.3.2.3).

    :param data: a file that passed ``check``.
    :param max_bytes: limit of the inflated length.
    :returns: an empty value where there is no profile, or it is damaged or longer than ``max_bytes``.
    """
    chunk = next((data[begin:end] for name, begin, end in _chunks(data) if name == b"iCCP"), b"")
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(chunk.partition(b"\0")[2][1:], max_bytes)
    except zlib.error:
        return b""
    return profile if stream.eof else b""


def check_pixels(data: bytes) -> None:
    """Verify that no pixels are missing, by inflating them once more in steps of bounded size.

    The compressed stream may end early and still be valid. The decoder then leaves the remaining pixels black without
    an error.

    :param data: a file that passed ``check`` and whose size is within the limits: the time is proportional to its
        pixels and its length.
    :raises VisionError: ``truncated``.
    """
    width, height, depth, colour_type, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, _HEADER_OFFSET)
    bits = depth * _SAMPLES[colour_type]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // right), -(-(height - y) // down)) for x, y, right, down in passes]
    missing = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    stream = zlib.decompressobj()
    for name, begin, end in _chunks(data):
        compressed = data[begin:end] if name == b"IDAT" else b""
        # After its end the stream would store all further input, copying it each time.
        while compressed and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(compressed, min(missing, _MAX_INFLATED_BYTES)))
            compressed = stream.unconsumed_tail
    if missing > 0:
        raise VisionError("truncated")


def read_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header."""
    return struct.unpack_from(">II", data, _HEADER_OFFSET)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and end of the data of each chunk, up to and including ``IEND``."""
    offset, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, offset)
        yield name, offset + 8, offset + 8 + length
        offset += 12 + length
