"""What is read off the structure of a picture's file, before a decoder has it: whether it is whole, and what of it is needed.

Decoders give what they have of a file that is cut short, or stop reading once the first frame is there; and some take their time
over what is no part of the picture. Here each format is walked to its end, in time that grows with the file's length at most.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
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
_PAGES: Final = 10_000
_ENTRIES: Final = 500_000
"""Most directories of a TIFF, and most entries and strips: these may overlap, so that a file's length bounds nothing."""
_PNG_HEAD: Final = 16
"""Where the data of its first chunk begin."""
_OF_PIXELS: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values of a pixel by a PNG's colour type (PNG, 11.2.1)."""
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and the steps to the next ones (PNG, 8.1)."""
_PIECE: Final = 1 << 20
_HEADER: Final = 1 << 16
"""Bytes that a size is looked for in. A GIF may begin with texts; to walk through many short ones takes its time."""
_OLDEST_BMP: Final = 12
"""Length of the header that tells it."""
_PLACES_AND_LENGTHS: Final = ((273, 279), (324, 325))
"""Tags of where strips and tiles lie and of how long they are (TIFF 6.0, sections 3 and 15)."""
_BYTE, _SHORT, _LONG = 1, 3, 4
_YCC: Final = 6
"""A TIFF's colours are kept as brightness and two differences, which may be of several pixels together (TIFF 6.0, section 21)."""


def check(kind: str, data: bytes) -> int:
    """Walk through a file to its end; what follows that is no part of the picture.

    :param kind: what ``shared.contract.sniff`` says of it.
    :returns: number of its frames or pages; 0 where the decoder knows it without looking at them.
    :raises VisionError: ``truncated``; ``corrupt``; ``unsupported_format``.
    """
    try:
        return _WALKS[kind](data)
    except (struct.error, IndexError) as error:  # read behind the last byte
        raise VisionError("truncated") from error


def is_plain_jpeg(data: bytes) -> bool:
    """Say whether a JPEG is whole and has no more segments and scans than cameras and ordinary encoders write."""
    try:
        markers = [marker for marker, _, _ in _segments(data)]
    except VisionError:
        return False
    return len(markers) <= _PLAIN_SEGMENTS and markers.count(_START_OF_SCAN) <= _PLAIN_SCANS


def needed(kind: str, data: bytes) -> bytes:
    """Give what Pillow needs of a file; all of it where nothing else would do harm.

    :raises VisionError: ``truncated``; ``corrupt``.
    """
    needed_of = {"jpeg": _needed_of_jpeg, "png": _needed_of_png}.get(kind)
    return data if needed_of is None else needed_of(data)


def size(kind: str | None, data: bytes) -> tuple[int, int] | None:
    """Read width and height off the header; None where that takes a decoder, or the format is not known."""
    try:
        return _SIZES[kind](data[:_HEADER]) if kind in _SIZES else None
    except (struct.error, IndexError, StopIteration, VisionError):  # there is no header, or no frame
        return None


def _jpeg(data: bytes) -> int:
    """From marker to marker: one that is cut short between its scans decodes without a complaint, but lacks its end marker."""
    if sum(marker == _START_OF_SCAN for marker, _, _ in _segments(data)) > _MOST_SCANS:
        raise VisionError("corrupt")
    return 1


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


def _needed_of_jpeg(data: bytes) -> bytes:
    """Leave out what lies between the segments in front of the pixels: Pillow reads that byte by byte."""
    kept = bytearray(data[:2])
    for marker, begin, end in _segments(data):
        if marker == _START_OF_SCAN:
            return bytes(kept) + data[begin:]
        if marker not in _UNREAD:
            kept += data[begin:end]
    return bytes(kept)


def _png(data: bytes) -> int:
    """From chunk to chunk, with the checksums of those that a decoder needs: Pillow skips the pixels' own."""
    view, frames = memoryview(data), 0
    for name, begin, end in _chunks(data):
        (checksum,) = struct.unpack_from(">I", data, end)
        if name[:1].isupper() and zlib.crc32(view[begin - 4 : end]) != checksum:
            raise VisionError("corrupt")
        if name == b"IHDR" and begin != _PNG_HEAD:  # of two sizes a decoder may take the other
            raise VisionError("corrupt")
        frames += name == b"fcTL"
    return max(1, frames)


def _needed_of_png(data: bytes) -> bytes:
    """Leave out what says nothing of the pixels and how they are turned: Pillow fails over a text that is long or a gamma that is short."""
    view, kept = memoryview(data), bytearray(data[:8])
    with suppress(struct.error):  # cut short: `check` says so
        for name, begin, end in _chunks(data):
            (checksum,) = struct.unpack_from(">I", data, end)
            if name in _OF_PIXELS or (name == b"eXIf" and zlib.crc32(view[begin - 4 : end]) == checksum):
                kept += view[begin - 8 : end + 4]
    return bytes(kept)


def profile_of_png(data: bytes, most: int) -> bytes:
    """Inflate the colour profile (PNG, 11.3.2.3); nothing where there is none, it is damaged, or longer than ``most`` bytes.

    :param data: passed ``check``.
    """
    packed = next((data[begin:end] for name, begin, end in _chunks(data) if name == b"iCCP"), b"")
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(packed.partition(b"\0")[2][1:], most)
    except zlib.error:
        return b""
    return profile if stream.eof else b""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give name, begin and end of the chunks of a PNG, up to its end's own."""
    at, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, at + 8 + length
        at += 12 + length


def check_filled(png: bytes) -> None:
    """See that the pixels of a PNG are all there, by inflating them once more, a piece at a time.

    Its one stream may end where it likes and yet be whole in itself. The decoder leaves the rest black, and says nothing.

    :param png: passed ``check``, and its size is within bounds: the time grows with its pixels and its length.
    :raises VisionError: ``truncated``.
    """
    wide, high, depth, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, _PNG_HEAD)
    bits = depth * _SAMPLES[colours]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(wide - x) // right), -(-(high - y) // down)) for x, y, right, down in passes]
    missing = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    stream = zlib.decompressobj()
    for name, begin, end in _chunks(png):
        piece = png[begin:end] if name == b"IDAT" else b""
        while piece and missing > 0 and not stream.eof:  # behind its end a stream would keep what it is given, and copy it each time
            missing -= len(stream.decompress(piece, min(missing, _PIECE)))
            piece = stream.unconsumed_tail
    if missing > 0:
        raise VisionError("truncated")


def _gif(data: bytes) -> int:
    """From block to block to the trailer."""
    return sum(1 for _ in _gif_frames(data))


def _gif_frames(data: bytes) -> Iterator[int]:
    """Give the place of each frame's descriptor."""
    at = 13 + _colours(data[10])
    while (kind := data[at]) != 0x3B:
        if kind == 0x2C:
            yield at
            at += 11 + _colours(data[at + 9])
        elif kind == 0x21:
            at += 2
        else:
            raise VisionError("corrupt")
        while length := data[at]:
            at += 1 + length
        at += 1


def _colours(flags: int) -> int:
    """Give the length of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(data: bytes) -> int:
    """Its header only: Pillow insists on every row."""
    (header,) = struct.unpack_from("<I", data, 14)
    if 14 + header > len(data):
        raise VisionError("truncated")
    return 1


def _tiff(data: bytes) -> int:
    """From directory to directory: all strips and tiles lie within the file, and those of the first make the whole picture."""
    order = {b"I": "<", b"M": ">"}[data[:1]]
    (at,) = struct.unpack_from(order + "I", data, 4)
    seen: set[int] = set()
    first: _Page | None = None
    entries = 0
    while at:
        if at in seen or len(seen) == _PAGES:
            raise VisionError("corrupt")
        seen.add(at)
        (number,) = struct.unpack_from(order + "H", data, at)
        (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * number)
        rows = struct.iter_unpack(order + "HHI4s", memoryview(data)[at + 2 : at + 2 + 12 * number])
        fields = {tag: (kind, count, value) for tag, kind, count, value in rows}
        entries += number + sum(fields[tag][1] for pair in _PLACES_AND_LENGTHS for tag in pair if tag in fields)
        if entries > _ENTRIES:
            raise VisionError("corrupt")
        page = _Page(data, order, fields)
        for pair in _PLACES_AND_LENGTHS:
            if any(place + length > len(data) for place, length in zip(*map(page.all, pair), strict=False)):
                raise VisionError("truncated")
        first = first or page
        at = following
    if first is None:
        raise VisionError("corrupt")
    first.check_whole()
    return len(seen)


@dataclass(frozen=True, slots=True)
class _Page:
    """A directory of a TIFF: type, count and value of each field, by its tag."""

    data: bytes
    order: str
    fields: dict[int, tuple[int, int, bytes]]

    def all(self, tag: int) -> tuple[int, ...]:
        """Read the numbers of a field: in its entry where they fit, else where that points; none where it is lacking."""
        kind, count, value = self.fields.get(tag, (_BYTE, 0, b""))
        if count > _ENTRIES:
            raise VisionError("corrupt")
        form = f"{self.order}{count}{ {_SHORT: 'H', _LONG: 'I'}.get(kind, 'B') }"
        if struct.calcsize(form) <= 4:
            return struct.unpack_from(form, value)
        (at,) = struct.unpack(self.order + "I", value)
        return struct.unpack_from(form, self.data, at)

    def one(self, tag: int, default: int) -> int:
        """Read the first number of a field."""
        return (*self.all(tag), default)[0]

    def check_whole(self) -> None:
        """See that there are as many strips or tiles as the picture takes, and that no cut shows in them.

        Decoders leave black what has none. libtiff insists on every row of what is compressed, unless that is a JPEG.

        :raises VisionError: ``truncated``; ``corrupt``; ``unsupported_format``.
        """
        width, height = self.one(256, 0), self.one(257, 0)
        tiled = 322 in self.fields
        across, down = (self.one(322, 0), self.one(323, 0)) if tiled else (width, min(height, self.one(278, height)))
        places, lengths = map(self.all, _PLACES_AND_LENGTHS[tiled])
        if 0 in {width, height, across, down}:
            raise VisionError("corrupt")
        samples, bits = self.one(277, 1), self.all(258) or (1,)
        planes = samples if self.one(284, 1) == 2 else 1
        compression = self.one(259, 1)
        shared = self.one(262, 0) == _YCC and self.all(530) not in {(), (1, 1)}
        if compression == 1 and (shared or (planes > 1 and max(bits) > 8)):
            raise VisionError("unsupported_format")  # Pillow takes them for colours of every pixel, and for planes of 8 bits
        if len(places) < -(-width // across) * -(-height // down) * planes:
            raise VisionError("truncated")
        if compression == 1 and lengths:
            depth = (sum(bits) if len(bits) == samples else bits[0] * samples) // planes
            rows = -(-width // across) * (-(-height // down) * down if tiled else height) * planes
            if sum(lengths) < rows * -(-across * depth // 8):
                raise VisionError("truncated")
        if compression == 7:
            if sum(lengths) > len(self.data):  # they overlap: walking through them would take more than the file's length
                raise VisionError("corrupt")
            for place, length in zip(places, lengths, strict=False):
                _jpeg(self.data[place : place + length])


def _webp(data: bytes) -> int:
    """The length that its first chunk says."""
    (length,) = struct.unpack_from("<I", data, 4)
    if 8 + length > len(data):
        raise VisionError("truncated")
    return 0


def _avif(data: bytes) -> int:
    """From box to box. The last one may say no length; the decoder then misses what is not there."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if length == 0:
            return 0
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
        if length < 8:
            raise VisionError("corrupt")
        at += length
    if at > len(data):
        raise VisionError("truncated")
    return 0


def _png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, _PNG_HEAD)


def _gif_size(data: bytes) -> tuple[int, int]:
    """The screen, and what of the first frame reaches beyond it."""
    left, top, width, height = struct.unpack_from("<HHHH", data, next(_gif_frames(data)) + 1)
    across, down = struct.unpack_from("<HH", data, 6)
    return max(across, left + width), max(down, top + height)


def _bmp_size(data: bytes) -> tuple[int, int]:
    """The oldest header has numbers of 16 bits; in others a height below zero says that rows go down."""
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == _OLDEST_BMP else "<ii", data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """A canvas, a lossless picture or a lossy one (RFC 9649, 2.7, 3.4; RFC 6386, 9.1)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


_SIZES: Final[dict[str, Callable[[bytes], tuple[int, int] | None]]] = {
    "png": _png_size,
    "gif": _gif_size,
    "bmp": _bmp_size,
    "webp": _webp_size,
}
_WALKS: Final[dict[str, Callable[[bytes], int]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "webp": _webp,
    "avif": _avif,
}
