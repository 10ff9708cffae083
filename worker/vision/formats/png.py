"""Parse the chunks of a PNG file (PNG, third edition, W3C 2025)."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from worker.vision.errors import VisionError

_HEADER_OFFSET: Final = 16
"""Offset of the first chunk's data in the file."""
_PIXEL_CHUNKS: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_COLOUR_CHUNKS: Final = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Number of samples for each pixel, by colour type (PNG, 11.2.1)."""
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""For each pass of an interlaced PNG: its first column, its first row, the step to its next column, and the step to its
next row (PNG, 8.1)."""
_MAX_INFLATED_BYTES: Final = 1 << 20
"""Limit for the number of bytes that one decompression step returns."""


def check(data: bytes) -> int:
    """Verify that the file is complete, and that the checksums of the chunks that a decoder needs are correct.

    The checksums are verified here because Pillow does not verify those of the chunks that contain pixels.

    :returns: the number of frames.
    :raises VisionError: ``corrupt``.
    :raises struct.error: the file is truncated.
    """
    view, frames = memoryview(data), 0
    for name, begin, end in _chunks(data):
        (checksum,) = struct.unpack_from(">I", data, end)
        if name[:1].isupper() and zlib.crc32(view[begin - 4 : end]) != checksum:
            raise VisionError("corrupt")
        if name == b"IHDR" and begin != _HEADER_OFFSET:  # if there were two headers, a decoder could use the second one
            raise VisionError("corrupt")
        frames += name == b"fcTL"
    return max(1, frames)


def remove_unneeded(data: bytes) -> bytes:
    """Return a file that contains only the chunks that determine the pixels and the orientation.

    Other chunks are removed because Pillow fails if a text chunk is long or a gamma chunk is short.
    """
    view, kept = memoryview(data), bytearray(data[:8])
    with suppress(struct.error):  # the file is truncated, which `check` reports
        for name, begin, end in _chunks(data):
            (checksum,) = struct.unpack_from(">I", data, end)
            if name in _PIXEL_CHUNKS or (name == b"eXIf" and zlib.crc32(view[begin - 4 : end]) == checksum):
                kept += view[begin - 8 : end + 4]
    return bytes(kept)


def read_icc_profile(data: bytes, max_bytes: int) -> bytes:
    """Return the colour profile (PNG, 11.3.2.3), which is compressed in the file.

    :param data: a file that passed ``check``.
    :param max_bytes: limit for the inflated length.
    :returns: the profile; empty if it is missing, damaged, or longer than ``max_bytes``.
    """
    chunk = next((data[begin:end] for name, begin, end in _chunks(data) if name == b"iCCP"), b"")
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(chunk.partition(b"\0")[2][1:], max_bytes)
    except zlib.error:
        return b""
    return profile if stream.eof else b""


def read_colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the data of the intact chunks that describe the colours and precede the pixels, by name.

    Of a colour profile, only the first bytes are returned.

    :param data: a file that passed ``check``.
    """
    view, found = memoryview(data), {}
    for name, begin, end in _chunks(data):
        if name == b"IDAT":
            break
        if name in _COLOUR_CHUNKS and zlib.crc32(view[begin - 4 : end]) == int.from_bytes(data[end : end + 4], "big"):
            found[name] = data[begin : min(end, begin + 32)]
    return found


def check_pixels(data: bytes) -> None:
    """Verify that no pixels are missing, by inflating the compressed pixels and counting the bytes.

    This is necessary because a compressed stream that ends too early can still be valid. In this case, the decoder
    leaves the remaining pixels black and reports no error. The pixels are inflated in steps of limited size, which
    limits the memory that is needed.

    :param data: a file that passed ``check``. Its width and height must already have been checked, because the time
        that this function takes is proportional to the number of pixels and to the length of the file.
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
        # No data are passed after the end of the stream, because the decompressor would store and copy them each time.
        while compressed and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(compressed, min(missing, _MAX_INFLATED_BYTES)))
            compressed = stream.unconsumed_tail
    if missing > 0:
        raise VisionError("truncated")


def read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height from the header."""
    return struct.unpack_from(">II", data, _HEADER_OFFSET)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, and the begin and end of the chunk's data, up to and including ``IEND``."""
    offset, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, offset)
        yield name, offset + 8, offset + 8 + length
        offset += 12 + length
