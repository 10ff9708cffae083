"""A PNG, from chunk to chunk (PNG, third edition, W3C 2025)."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from worker.vision.errors import VisionError

_HEAD: Final = 16
"""Where the data of its first chunk begin."""
_OF_PIXELS: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values of a pixel by a PNG's colour type (PNG, 11.2.1)."""
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and the steps to the next ones (PNG, 8.1)."""
_PIECE: Final = 1 << 20


def check(data: bytes) -> int:
    """From chunk to chunk, with the checksums of those that a decoder needs: Pillow skips the pixels' own."""
    view, frames = memoryview(data), 0
    for name, begin, end in _chunks(data):
        (checksum,) = struct.unpack_from(">I", data, end)
        if name[:1].isupper() and zlib.crc32(view[begin - 4 : end]) != checksum:
            raise VisionError("corrupt")
        if name == b"IHDR" and begin != _HEAD:  # of two sizes a decoder may take the other
            raise VisionError("corrupt")
        frames += name == b"fcTL"
    return max(1, frames)


def needed(data: bytes) -> bytes:
    """Leave out what says nothing of the pixels and how they are turned: Pillow fails over a text that is long or a gamma that is short."""
    view, kept = memoryview(data), bytearray(data[:8])
    with suppress(struct.error):  # cut short: `check` says so
        for name, begin, end in _chunks(data):
            (checksum,) = struct.unpack_from(">I", data, end)
            if name in _OF_PIXELS or (name == b"eXIf" and zlib.crc32(view[begin - 4 : end]) == checksum):
                kept += view[begin - 8 : end + 4]
    return bytes(kept)


def profile(data: bytes, most: int) -> bytes:
    """Inflate the colour profile (PNG, 11.3.2.3); nothing where there is none, it is damaged, or longer than ``most`` bytes.

    :param data: passed ``check``.
    """
    packed = next((data[begin:end] for name, begin, end in _chunks(data) if name == b"iCCP"), b"")
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(packed.partition(b"\0")[2][1:], most)
    except zlib.error:
        return b""
    return inflated if stream.eof else b""


def check_filled(data: bytes) -> None:
    """See that the pixels of a PNG are all there, by inflating them once more, a piece at a time.

    Its one stream may end where it likes and yet be whole in itself. The decoder leaves the rest black, and says nothing.

    :param data: passed ``check``, and its size is within bounds: the time grows with its pixels and its length.
    :raises VisionError: ``truncated``.
    """
    wide, high, depth, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, _HEAD)
    bits = depth * _SAMPLES[colours]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(wide - x) // right), -(-(high - y) // down)) for x, y, right, down in passes]
    missing = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    stream = zlib.decompressobj()
    for name, begin, end in _chunks(data):
        piece = data[begin:end] if name == b"IDAT" else b""
        while piece and missing > 0 and not stream.eof:  # behind its end a stream would keep what it is given, and copy it each time
            missing -= len(stream.decompress(piece, min(missing, _PIECE)))
            piece = stream.unconsumed_tail
    if missing > 0:
        raise VisionError("truncated")


def size(data: bytes) -> tuple[int, int]:
    """Width and height, off the header."""
    return struct.unpack_from(">II", data, _HEAD)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give name, begin and end of the chunks of a PNG, up to its end's own."""
    at, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, at + 8 + length
        at += 12 + length
