"""Parse the directories of a TIFF file (TIFF 6.0)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from worker.vision.errors import VisionError
from worker.vision.formats import jpeg

_BYTE_ORDERS: Final = {b"I": "<", b"M": ">"}
_MAX_FIELDS_FOR_SIZE: Final = 64
"""The size is not read from a directory with more fields than this. Cameras and scanners write about twenty."""
_MAX_PAGES: Final = 10_000
_MAX_ENTRIES: Final = 500_000
"""``_MAX_PAGES`` limits the number of directories. ``_MAX_ENTRIES`` limits the total number of entries, strips, and
tiles. These limits are necessary because the structures can overlap, so the length of the file does not limit their
number."""
_OFFSET_AND_LENGTH_TAGS: Final = ((273, 279), (324, 325))
"""The tags for the offsets and the lengths of strips, and those of tiles (TIFF 6.0, sections 3 and 15)."""
_SUBFILE_TAG: Final = 254
_SUBDIRECTORIES_TAG: Final = 330
"""Tag for directories that do not follow the others. A raw photo stores its full image in one of them (TIFF/EP)."""
_CANON_RAW: Final = b"CR"
"""Bytes 8 and 9 of a raw photo of the format CR2. Its first directory describes a preview."""
_SIZE_TAGS: Final = (256, 257)
"""Tags for the width and the height."""
_SAMPLES_TAG: Final = 277
_EXTRA_SAMPLES_TAG: Final = 338
"""Tag for the meaning of the samples after those of the colours."""
_UNSPECIFIED, PREMULTIPLIED, _OPACITY = 0, 1, 2
"""The meanings of an extra sample: unspecified; the opacity, by which the colours have been multiplied; the opacity
(TIFF 6.0, section 18)."""
_BYTE, _SHORT, _LONG = 1, 3, 4
_INTEGER_TYPES: Final = {_BYTE: "B", _SHORT: "H", _LONG: "I", 8: "H", 9: "I", 13: "I"}
"""Format characters of the module ``struct`` for the integer field types. Signed types are read as unsigned, because
the fields that are used here never contain negative values."""
_YCBCR: Final = 6
"""The photometric interpretation in which a pixel has a luma sample and two chroma samples, and several pixels can
share their chroma samples (TIFF 6.0, section 21)."""


def check(data: bytes) -> int:
    """Parse all directories, and verify that the file is complete.

    All strips and tiles must be inside the file, and the strips or tiles of the first directory must cover the whole
    image. This directory must not describe a preview of another image in the file, as in raw photos, because Pillow
    decodes nothing else.

    :returns: the number of directories, each of which describes a page.
    :raises VisionError: ``truncated``; ``corrupt``; ``unsupported_format``.
    :raises struct.error: the file is truncated.
    """
    order = _BYTE_ORDERS[data[:1]]
    (offset,) = struct.unpack_from(order + "I", data, 4)
    seen: set[int] = set()
    first: _Directory | None = None
    entries = 0
    while offset:
        if offset in seen or len(seen) == _MAX_PAGES:
            raise VisionError("corrupt")
        seen.add(offset)
        (count,) = struct.unpack_from(order + "H", data, offset)
        (following,) = struct.unpack_from(order + "I", data, offset + 2 + 12 * count)
        directory = _read_directory(data, order, offset, count)
        entries += count + sum(directory.fields[tag][1] for pair in _OFFSET_AND_LENGTH_TAGS for tag in pair if tag in directory.fields)
        if entries > _MAX_ENTRIES:
            raise VisionError("corrupt")
        for pair in _OFFSET_AND_LENGTH_TAGS:
            if any(begin + length > len(data) for begin, length in zip(*map(directory.values, pair), strict=False)):
                raise VisionError("truncated")
        first = first or directory
        offset = following
    if first is None:
        raise VisionError("corrupt")
    if data[8:10] == _CANON_RAW or (first.value(_SUBFILE_TAG, 0) & 1 and (len(seen) > 1 or _SUBDIRECTORIES_TAG in first.fields)):
        raise VisionError("unsupported_format")
    first.check_complete()
    return len(seen)


def read_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height from the first directory.

    :returns: None if the directory has very many fields, or if the fields for the width and the height are missing,
        repeated, in the wrong order, or of an unusual type.
    """
    order = _BYTE_ORDERS[data[:1]]
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    if count > _MAX_FIELDS_FOR_SIZE:
        return None
    size_entries = [entry for entry in _entries(data, order, offset, count) if entry[0] in _SIZE_TAGS]
    is_usual = all(kind in {_SHORT, _LONG} and length == 1 for _, kind, length, _ in size_entries)
    if [entry[0] for entry in size_entries] != list(_SIZE_TAGS) or not is_usual:
        return None  # decoders can differ in how they read a tag that is repeated or has an unusual type
    directory = _read_directory(data, order, offset, count)
    return directory.value(256, 0), directory.value(257, 0)


def normalize(data: bytes) -> bytes:
    """Return a file whose pixels Pillow reads as they are stored.

    - Colours that have been multiplied by the opacity are declared as others, because Pillow would divide them, and lose
      them where the opacity is zero.
    - If a field with the meaning of the second channel of a grey image is missing, it is added, because Pillow requires
      it.

    Only the first directory is changed, which is the only one that is decoded.
    """
    order = _BYTE_ORDERS[data[:1]]
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, offset)
        entries = [struct.pack(order + "HHI4s", *entry) for entry in _entries(data, order, offset, count)]
        fields = _read_directory(data, order, offset, count)
        extra, samples = fields.values(_EXTRA_SAMPLES_TAG), fields.value(_SAMPLES_TAG, 1)
        following = data[offset + 2 + 12 * count :][:4]
    except (struct.error, VisionError):  # the file is truncated or damaged, which `check` reports
        return data
    if extra[:1] == (PREMULTIPLIED,):
        extra = (_OPACITY, *extra[1:])
    elif not extra and samples == len("LA"):
        extra = (_UNSPECIFIED,)
    else:
        return data
    meanings = struct.pack(f"{order}{len(extra)}H", *extra)
    appended = data + bytes(len(data) % 2) + meanings
    place = meanings.ljust(4, b"\0") if len(meanings) <= 4 else struct.pack(order + "I", len(appended) - len(meanings))
    rows = {struct.unpack_from(order + "H", entry)[0]: entry for entry in reversed(entries)}  # the first one is used
    rows[_EXTRA_SAMPLES_TAG] = struct.pack(order + "HHI4s", _EXTRA_SAMPLES_TAG, _SHORT, len(extra), place)
    directory = struct.pack(order + "H", len(rows)) + b"".join(rows[tag] for tag in sorted(rows)) + following
    return appended[:4] + struct.pack(order + "I", len(appended)) + appended[8:] + directory


def read_extra_sample(data: bytes) -> int | None:
    """Return the meaning of the first extra sample in the first directory; None if there is no such field.

    :param data: a file that passed ``check``.
    """
    order = _BYTE_ORDERS[data[:1]]
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    return next(iter(_read_directory(data, order, offset, count).values(_EXTRA_SAMPLES_TAG)), None)


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory of a TIFF.

    ``fields`` maps the tag of each field to the field's type, its number of values, and the four bytes that contain the
    values or their offset.
    """

    data: bytes
    order: str
    fields: dict[int, tuple[int, int, bytes]]

    def values(self, tag: int) -> tuple[int, ...]:
        """Return the integers in a field; empty if the field is missing.

        If the integers fit into four bytes, they are in the field's entry. Otherwise, the entry contains their offset.
        """
        kind, count, value = self.fields.get(tag, (_BYTE, 0, b""))
        if count > _MAX_ENTRIES:
            raise VisionError("corrupt")
        form = f"{self.order}{count}{_INTEGER_TYPES[kind]}"
        if struct.calcsize(form) <= 4:
            return struct.unpack_from(form, value)
        (offset,) = struct.unpack(self.order + "I", value)
        return struct.unpack_from(form, self.data, offset)

    def value(self, tag: int, default: int) -> int:
        """Return the first integer in a field; ``default`` if the field is missing."""
        return (*self.values(tag), default)[0]

    def check_complete(self) -> None:
        """Verify that there are as many strips or tiles as the image needs, and that they are not too short.

        This is necessary because decoders leave missing strips and tiles black and report no error. Compressed strips
        and tiles are checked only if the compression is JPEG, because libtiff reports missing rows for every other
        compression.

        :raises VisionError: ``truncated``; ``corrupt``; ``unsupported_format``.
        """
        width, height = self.value(256, 0), self.value(257, 0)
        tiled = 322 in self.fields
        across, down = (self.value(322, 0), self.value(323, 0)) if tiled else (width, min(height, self.value(278, height)))
        offsets, lengths = map(self.values, _OFFSET_AND_LENGTH_TAGS[tiled])
        if 0 in {width, height, across, down}:
            raise VisionError("corrupt")
        samples, bits = self.value(277, 1), self.values(258) or (1,)
        planes = samples if self.value(284, 1) == 2 else 1
        compression = self.value(259, 1)
        subsampled = self.value(262, 0) == _YCBCR and self.values(530) not in {(), (1, 1)}
        if compression == 1 and (subsampled or (planes > 1 and max(bits) > 8)):
            # Pillow reads shared chroma samples as if each pixel had its own, and planes as if they had 8-bit samples.
            raise VisionError("unsupported_format")
        if len(offsets) < -(-width // across) * -(-height // down) * planes:
            raise VisionError("truncated")
        if compression == 1 and lengths:
            depth = (sum(bits) if len(bits) == samples else bits[0] * samples) // planes
            rows = -(-width // across) * (-(-height // down) * down if tiled else height) * planes
            if sum(lengths) < rows * -(-across * depth // 8):
                raise VisionError("truncated")
        if compression == 7:
            # If tiles or strips overlapped, parsing them would take more time than in proportion to the file's length.
            if sum(lengths) > len(self.data):
                raise VisionError("corrupt")
            for offset, length in zip(offsets, lengths, strict=False):
                jpeg.check(self.data[offset : offset + length])


def _read_directory(data: bytes, order: str, offset: int, count: int) -> _Directory:
    """Read a directory, and treat repeated and unknown fields as Pillow does.

    If a field is repeated, only the first one is used. A field with an unknown type is ignored.
    """
    fields: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, length, value in _entries(data, order, offset, count):
        if kind in _INTEGER_TYPES:
            fields.setdefault(tag, (kind, length, value))
    return _Directory(data, order, fields)


def _entries(data: bytes, order: str, offset: int, count: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the tag, the type, the number of values, and the values or their offset, for each field."""
    return struct.iter_unpack(order + "HHI4s", memoryview(data)[offset + 2 : offset + 2 + 12 * count])
