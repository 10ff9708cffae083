"""A TIFF, from directory to directory (TIFF 6.0)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from worker.vision.errors import VisionError
from worker.vision.formats import jpeg

_ORDERS: Final = {b"I": "<", b"M": ">"}
_FEW: Final = 64
"""Fields of a directory that is read only for the size. Cameras and scanners write about twenty."""
_PAGES: Final = 10_000
_ENTRIES: Final = 500_000
"""Most directories of a TIFF, and most entries and strips: these may overlap, so that a file's length bounds nothing."""
_PLACES_AND_LENGTHS: Final = ((273, 279), (324, 325))
"""Tags of where strips and tiles lie and of how long they are (TIFF 6.0, sections 3 and 15)."""
_SIZE: Final = (256, 257)
"""Tags of width and height."""
_BYTE, _SHORT, _LONG = 1, 3, 4
_TYPES: Final = {_BYTE: "B", _SHORT: "H", _LONG: "I", 8: "H", 9: "I", 13: "I"}
"""Of fields that hold whole numbers; those with a sign are never below zero where they matter here."""
_YCC: Final = 6
"""A TIFF's colours are kept as brightness and two differences, which may be of several pixels together (TIFF 6.0, section 21)."""


def check(data: bytes) -> int:
    """From directory to directory: all strips and tiles lie within the file, and those of the first make the whole picture."""
    order = _ORDERS[data[:1]]
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
        page = _page(data, order, at, number)
        entries += number + sum(page.fields[tag][1] for pair in _PLACES_AND_LENGTHS for tag in pair if tag in page.fields)
        if entries > _ENTRIES:
            raise VisionError("corrupt")
        for pair in _PLACES_AND_LENGTHS:
            if any(place + length > len(data) for place, length in zip(*map(page.all, pair), strict=False)):
                raise VisionError("truncated")
        first = first or page
        at = following
    if first is None:
        raise VisionError("corrupt")
    first.check_whole()
    return len(seen)


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height, off the first directory; None where that is no ordinary one."""
    order = _ORDERS[data[:1]]
    (at,) = struct.unpack_from(order + "I", data, 4)
    (number,) = struct.unpack_from(order + "H", data, at)
    if number > _FEW:
        return None
    said = [row for row in _rows(data, order, at, number) if row[0] in _SIZE]
    if [row[0] for row in said] != list(_SIZE) or any(kind not in {_SHORT, _LONG} or count != 1 for _, kind, count, _ in said):
        return None  # decoders need not agree on what is said twice, or in another way
    page = _page(data, order, at, number)
    return page.one(256, 0), page.one(257, 0)


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
        form = f"{self.order}{count}{_TYPES[kind]}"
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
                jpeg.check(self.data[place : place + length])


def _page(data: bytes, order: str, at: int, number: int) -> _Page:
    """Read a directory as Pillow does: the first of a field counts, and one of an unknown type is none."""
    fields: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, count, value in _rows(data, order, at, number):
        if kind in _TYPES:
            fields.setdefault(tag, (kind, count, value))
    return _Page(data, order, fields)


def _rows(data: bytes, order: str, at: int, number: int) -> Iterator[tuple[int, int, int, bytes]]:
    return struct.iter_unpack(order + "HHI4s", memoryview(data)[at + 2 : at + 2 + 12 * number])
