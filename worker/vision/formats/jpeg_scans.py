"""Find the padding at the end of the scans of a JPEG file (ITU-T T.81, annex B)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worker.vision.formats.jpeg import END_OF_IMAGE

START: Final = b"\xff\xd8"
END: Final = bytes([0xFF, END_OF_IMAGE])
ZERO: Final = b"\0"
_STUFFED: Final = b"\xff\0"
"""The byte FF as it is written in compressed pixels (ITU-T T.81, B.1.1.5)."""
_MAX_NEEDED_ZEROS: Final = 3
"""Limit for the zeros at the end of a scan that belong to the pixels. With the usual Huffman tables, an unchanged
colour has eight zero bits. With other tables, a whole area can have zero bits, in which damage would not be noticed."""
_MAX_NEEDED_OTHERS: Final = 1
"""The same limit for the repetitions of another byte."""
_MIN_OTHERS: Final = 4
"""Smallest number of repetitions of a byte other than zero that are padding. If there are fewer, they may be pixels."""
_MAX_DECODED_SCANS: Final = 160
"""Limit for the number of scans that are decoded, in all attempts together. Progressive encoders write about ten scans.
If no pixels need a zero at the end of their scan, one attempt suffices."""

HashPixels = Callable[[bytes], bytes | None]
"""Return a hash of a JPEG's pixels; None if the file is damaged, for example, if its data end before the last pixel."""


@dataclass(slots=True)
class Scan:
    """A scan: the segments in front of it, its start-of-scan segment, and its compressed pixels."""

    segments: list[bytes]
    header: bytes
    compressed: bytes

    @property
    def start(self) -> bytes:
        """Everything in front of the compressed pixels that follows the previous scan."""
        return b"".join(self.segments) + self.header


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of compressed pixels: ``core``, followed by ``count`` repetitions of ``unit``.

    ``unit`` is one byte. The byte FF is followed by its zero.
    """

    core: bytes
    unit: bytes
    count: int

    @property
    def max_needed(self) -> int:
        """The largest number of units that can belong to the pixels."""
        return min(self.count, _MAX_NEEDED_ZEROS if self.unit == ZERO else _MAX_NEEDED_OTHERS)

    def keep(self, units: int) -> bytes:
        """Return the compressed pixels with fewer units."""
        return self.core + self.unit * units

    def counterpart(self, units: int) -> bytes | None:
        """Return what must not have the same pixels as ``keep(units)`` if all of the latter belongs to the pixels.

        If the last byte of the pixels is zero, each of its bits is a part of them, because the rest of the byte would
        be filled with one bits (ITU-T T.81, F.1.2.3). If a byte other than zero is repeated, the byte in front of it is
        the last one.

        :returns: None if no comparison is necessary.
        """
        if self.unit == ZERO:
            return self.keep(units - 1) + b"\1" if units else None
        return self.core[: -2 if self.core.endswith(_STUFFED) else -1] if units == 0 else None


def split_padding(compressed: bytes, *, unit: bytes | None = None) -> Ending:
    """Separate compressed pixels from what can be padding at their end.

    :param unit: the unit of the padding. If it is None, it can be zero, or any other byte that is repeated often enough.
    """
    wanted = last_unit(compressed) if unit is None else unit
    core = _strip(compressed, wanted) if wanted else compressed
    if core.endswith(b"\xff"):  # the zero after FF is not padding
        core += ZERO
    count = (len(compressed) - len(core)) // max(1, len(wanted))
    if unit is None and wanted != ZERO and count < _MIN_OTHERS:
        return Ending(compressed, wanted, 0)
    return Ending(core, wanted, count)


def last_unit(compressed: bytes) -> bytes:
    """Return the last byte of compressed pixels, with its zero if it is FF; empty if there are none."""
    return _STUFFED if compressed.endswith(_STUFFED) else compressed[-1:]


def trim(
    compressed: bytes, start: bytes, hash_pixels: HashPixels, *, unit: bytes | None = None, is_cut: bool = False
) -> bytes | None:
    """Return compressed pixels without the padding at their end.

    :param start: everything that precedes the compressed pixels in a file that contains no others.
    :param unit: see ``split_padding``.
    :param is_cut: whether the end marker is missing. The pixels could then continue, so zeros that the pixels need are
        accepted only if there are no others.
    :returns: ``compressed`` itself if there is no padding; None if there is damage.
    """
    ending = split_padding(compressed, unit=unit)
    if not ending.count:
        return compressed
    for units in range(ending.max_needed + 1):
        pixels = hash_pixels(start + ending.keep(units) + END)
        if pixels is None:
            continue
        counterpart = ending.counterpart(units)
        if counterpart is None or hash_pixels(start + counterpart + END) != pixels:
            return None if is_cut and 0 < units < ending.count else ending.keep(units)
        return None if is_cut or units < ending.count else compressed
    is_whole = not is_cut and ending.count > ending.max_needed and hash_pixels(start + compressed + END) is not None
    return compressed if is_whole else None


def trim_all(scans: list[Scan], hash_pixels: HashPixels) -> list[bytes] | None:
    """Return the compressed pixels of several scans without the padding at the end of each scan.

    A scan is decoded together with the previous ones, because it can refine their pixels. The first scan that cannot be
    decoded is found by bisection.

    :returns: None if there is damage, or if too many attempts are necessary.
    """
    search = _Search(scans, hash_pixels)
    if not any(ending.count for ending in search.endings):
        return None
    decoded, count = 0, len(scans)
    while search.hash_first(count) is None:
        decoded = search.find_failing(decoded)
        if not search.lengthen(decoded - 1):
            return None
    if search.units[-1] == 0 and not search.is_exact(count - 1):
        return None
    return [ending.keep(units) for ending, units in zip(search.endings, search.units, strict=True)]


class _Search:
    """A search for the number of units that the pixels of each scan need (see ``Ending``), in few attempts.

    ``endings`` are the ends of the scans, and ``units`` are the numbers of units that are kept.
    """

    def __init__(self, scans: list[Scan], hash_pixels: HashPixels) -> None:
        self._scans, self._hash_pixels = scans, hash_pixels
        self._decoded_scans = 0
        self.endings = [split_padding(scan.compressed, unit=ZERO) for scan in scans[:-1]]
        self.endings.append(split_padding(scans[-1].compressed))
        self.units = [0] * len(scans)

    def hash_first(self, count: int, last: bytes | None = None) -> bytes | None:
        """Decode a file of the first scans.

        :param last: the compressed pixels of the last one of these scans, instead of its own ones.
        :returns: None if it cannot be decoded, or if too many scans were decoded before.
        """
        self._decoded_scans += count
        if self._decoded_scans > _MAX_DECODED_SCANS:
            return None
        compressed = [ending.keep(units) for ending, units in zip(self.endings[:count], self.units, strict=False)]
        if last is not None:
            compressed[-1] = last
        parts = [scan.start + pixels for scan, pixels in zip(self._scans, compressed, strict=False)]
        return self._hash_pixels(START + b"".join(parts) + END)

    def find_failing(self, decoded: int) -> int:
        """Return the smallest number of scans that cannot be decoded.

        :param decoded: a number of scans that can be decoded.
        """
        failing = len(self._scans)
        while failing - decoded > 1:
            middle = (decoded + failing) // 2
            if self.hash_first(middle) is None:
                failing = middle
            else:
                decoded = middle
        return failing

    def lengthen(self, index: int) -> bool:
        """Keep as many units of a scan as its pixels need, and return whether there is such a number."""
        ending = self.endings[index]
        for self.units[index] in sorted({*range(1, ending.max_needed + 1), ending.count} - {0}):
            if self.hash_first(index + 1) is not None:
                return self.is_exact(index)
        return False

    def is_exact(self, index: int) -> bool:
        """Return whether all kept units of a scan belong to its pixels (see ``Ending.counterpart``)."""
        counterpart = self.endings[index].counterpart(self.units[index])
        if counterpart is None:
            return True
        other, pixels = self.hash_first(index + 1, counterpart), self.hash_first(index + 1)
        return pixels is not None and pixels != other


def _strip(compressed: bytes, unit: bytes) -> bytes:
    if len(unit) == 1:
        return compressed.rstrip(unit)
    end = len(compressed)
    while compressed.endswith(unit, 0, end):
        end -= len(unit)
    return compressed[:end]
