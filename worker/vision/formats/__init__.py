"""What is read off the structure of a picture's file, before a decoder has it: whether it is whole, how large, and what of it is needed.

Decoders give what they have of a file that is cut short, or stop reading once the first frame is there; and some take their time
over what is no part of the picture. Here each format, in a module of its own, is walked to its end, in time that grows with the file's length at most.
"""

import struct
from collections.abc import Callable
from typing import Final

from worker.vision.errors import VisionError
from worker.vision.formats import avif, bmp, gif, jpeg, png, tiff, webp

_CHECKS: Final[dict[str, Callable[[bytes], int]]] = {
    "jpeg": jpeg.check,
    "png": png.check,
    "gif": gif.check,
    "bmp": bmp.check,
    "tiff": tiff.check,
    "webp": webp.check,
    "avif": avif.check,
}
_SIZES: Final[dict[str, Callable[[bytes], tuple[int, int] | None]]] = {
    "png": png.size,
    "gif": gif.size,
    "bmp": bmp.size,
    "tiff": tiff.size,
    "webp": webp.size,
    "avif": avif.size,
}
_NEEDED: Final[dict[str, Callable[[bytes], bytes]]] = {"jpeg": jpeg.needed, "png": png.needed}


def check(kind: str, data: bytes) -> int:
    """Walk through a file to its end; what follows that is no part of the picture.

    :param kind: what ``shared.media_types.sniff`` says of it.
    :returns: number of its frames or pages; 0 where the decoder knows it without looking at them.
    :raises VisionError: ``truncated``; ``corrupt``; ``unsupported_format``.
    """
    try:
        return _CHECKS[kind](data)
    except (struct.error, IndexError) as error:  # read behind the last byte
        raise VisionError("truncated") from error


def needed(kind: str, data: bytes) -> bytes:
    """Give what Pillow needs of a file; all of it where nothing else would do harm.

    :raises VisionError: ``truncated``; ``corrupt``.
    """
    return _NEEDED[kind](data) if kind in _NEEDED else data


def size(kind: str | None, data: bytes) -> tuple[int, int] | None:
    """Read width and height off the header, of all but a JPEG; None where that takes a decoder, or the format is not known."""
    try:
        return _SIZES[kind](data) if kind in _SIZES else None
    except (struct.error, LookupError, StopIteration, VisionError):  # there is no header, or no frame
        return None
