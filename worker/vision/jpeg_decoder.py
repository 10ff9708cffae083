"""Decode JPEGs strictly with libjpeg-turbo, through simplejpeg."""

from functools import cache, partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.vision.formats import jpeg_padding


@cache
def simplejpeg() -> Any:
    """Return the module simplejpeg; None on a machine without it, where Pillow does the same work more slowly."""
    try:
        import simplejpeg as module  # it is imported on first use, and only here, because some machines do not have it
    except ImportError:
        return None
    return module


def read_header(data: bytes) -> tuple[int, int, str] | None:
    """Return the height, the width and libjpeg-turbo's name of the colour space, for example ``YCbCr``.

    :returns: None if the file is not a JPEG, if its header cannot be read, or if simplejpeg is missing.
    """
    library = simplejpeg()
    if library is None or data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, space, _ = library.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: simplejpeg does not know the colour space
        return None
    return int(height), int(width), str(space)


def decode(data: bytes, *, size: tuple[int, int], min_side: int | None = None) -> NDArray[np.uint8]:
    """Decode a JPEG strictly to RGB ``[H, W, 3]``.

    Padding in the compressed pixels, or a missing end marker, which libjpeg-turbo reports as damage, is mended before a
    second attempt.

    :param data: a file that ``formats.normalize`` returned.
    :param size: the width and height of the JPEG at full size, in pixels.
    :param min_side: see ``imaging.decode``. If it is None, the JPEG is decoded at full size.
    :raises ValueError: the file is damaged; the message is libjpeg-turbo's.
    """
    if min_side is None:
        return _decode(data, "RGB")
    return _decode(data, "RGB", min_factor=2, **{"min_width" if size[0] >= size[1] else "min_height": min_side})


def decode_cmyk(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG of four inks strictly to ``[H, W, 4]``, in which 0 means no ink.

    :param data: a file that ``formats.normalize`` returned.
    :raises ValueError: the file is damaged; the message is libjpeg-turbo's.
    """
    cmyk = _decode(data, "CMYK")
    # The values in a CMYK JPEG are inverted, as Adobe's software writes them.
    return np.subtract(255, cmyk, out=cmyk)


def _decode(data: bytes, colorspace: str, **reduction: int) -> NDArray[np.uint8]:
    decode = partial(simplejpeg().decode_jpeg, colorspace=colorspace, strict=True)

    def hash_pixels(part: bytes) -> bytes | None:
        try:
            return sha256(decode(part)).digest()
        except ValueError:
            return None

    try:
        pixels: NDArray[np.uint8] = decode(data, **reduction)
    except ValueError:
        without_padding = jpeg_padding.remove_padding(data, hash_pixels)
        if without_padding == data:
            raise
        pixels = decode(without_padding, **reduction)
    return pixels
