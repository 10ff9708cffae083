"""Parse the structure of image files before they are decoded.

The structure shows whether a file is complete, how large the image is, and which parts a decoder needs. Decoders alone
do not suffice: some return the existing part of a truncated file without an error, some stop reading after the first
frame, and some need a long time for data that do not belong to the image. This package has one module or more for each format,
which parses the file to its end in a time that is at most proportional to the length of the file.
"""

import struct
from collections.abc import Callable
from typing import Final

from worker.vision.errors import VisionError
from worker.vision.formats import avif, bmp, gif, jpeg, jpeg_header, png, tiff, webp

_CHECKS: Final[dict[str, Callable[[bytes], int]]] = {
    "jpeg": jpeg.check,
    "png": png.check,
    "gif": gif.check,
    "bmp": bmp.check,
    "tiff": tiff.check,
    "webp": webp.check,
    "avif": avif.check,
}
_SIZE_READERS: Final[dict[str, Callable[[bytes], tuple[int, int] | None]]] = {
    "png": png.read_size,
    "gif": gif.read_size,
    "bmp": bmp.read_size,
    "tiff": tiff.read_size,
    "webp": webp.read_size,
    "avif": avif.read_size,
}
_NORMALIZERS: Final[dict[str, Callable[[bytes], bytes]]] = {"jpeg": jpeg_header.normalize, "png": png.remove_unneeded, "tiff": tiff.normalize}


def check(kind: str, data: bytes) -> int:
    """Verify that a file is complete. Bytes after the end of the image are ignored.

    :param kind: the format, as returned by ``shared.media_types.sniff``.
    :returns: the number of frames or pages; 0 for a format for which this function does not count them. For such a
        format, the decoder can return the number without decoding the frames.
    :raises VisionError: ``truncated``; ``corrupt``; ``unsupported_format``.
    """
    try:
        return _CHECKS[kind](data)
    except (struct.error, IndexError) as error:  # the parser tried to read beyond the last byte
        raise VisionError("truncated") from error


def normalize(kind: str, data: bytes) -> bytes:
    """Return a file with the same pixels, without the parts that can make a decoder slow or fail.

    Files of most formats are returned unchanged.

    :param kind: the format, as returned by ``shared.media_types.sniff``.
    :raises VisionError: ``truncated``; ``corrupt``.
    """
    return _NORMALIZERS[kind](data) if kind in _NORMALIZERS else data


def read_size(kind: str | None, data: bytes) -> tuple[int, int] | None:
    """Read the width and height in pixels from the header of a file in any format except JPEG.

    :returns: None if the header does not contain the size, or if the format is unknown.
    """
    try:
        return _SIZE_READERS[kind](data) if kind in _SIZE_READERS else None
    except (struct.error, LookupError, StopIteration, VisionError):  # there is no valid header, or no frame
        return None
