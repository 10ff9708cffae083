"""Convert the pixels of every mode of Pillow to 8-bit RGB."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

_WITH_ALPHA: Final = {"RGBA", "LA", "PA", "La", "RGBa"}
_EXTRA_SAMPLES: Final = 338
_NO_DATA: Final = 42_113
"""Tag in which GDAL stores, as a text, the value of the pixels without a value."""
_MAX_VALUE: Final = 1e30
"""A floating-point value beyond this is not a measured one. Programs write such values where a value is missing, for
example the largest one that can be stored."""
_MAX_JUMP: Final = 1000.0
"""If the largest value is this many times larger than the next one, it marks pixels without a value."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to the mode RGB. Where it is transparent, white shows through."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey_to_uint8(image)).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if _is_without_alpha(image, rgba):
            return rgba.convert("RGB")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _is_without_alpha(image: Image.Image, rgba: Image.Image) -> bool:
    """Return whether the fourth channel of a BMP or TIFF does not contain the opacity.

    Many programs reserve this channel and fill it with zeros. In a TIFF, its meaning is unspecified if there is no field
    that describes it (TIFF 6.0, section 18).
    """
    if image.format == "TIFF" and _EXTRA_SAMPLES not in _tags(image):
        return True
    return image.format in {"BMP", "TIFF"} and rgba.getchannel("A").getextrema() == (0, 0)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _grey_to_uint8(image: Image.Image) -> NDArray[np.uint8]:
    """Reduce grey values with more than 8 bits to 8 bits.

    For values with up to 16 bits, white is the maximum of the bit depth. For values with more bits, white is the
    largest value in the image, and pixels without a value are zero.
    """
    tags = _tags(image)
    values = np.asarray(image)
    if image.mode == "I" and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow stores these unsigned values in a signed type
    if image.mode.startswith("I;16"):
        white = 2.0 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    else:
        values, white = _clean(values.astype(np.float32), tags.get(_NO_DATA))
    grey: NDArray[np.uint8] = np.clip(values.astype(np.float32) / white * 255, 0, 255).astype(np.uint8)
    # If zero means white, Pillow inverts the values of an image with up to 8 bits, but not those of an image with more.
    zero_is_white = bool(tags) and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0
    return 255 - grey if zero_is_white else grey


def _clean(values: NDArray[np.float32], no_data: Any) -> tuple[NDArray[np.float32], float]:
    """Replace the values of pixels without a value by zero, and return the new values and the largest of them.

    A pixel has no value if its value is infinite, not a number, excessive, the value that the file names, or far above
    the values of all other pixels.

    :param no_data: the text in the field that names the value of pixels without a value, or None.
    """
    is_missing = ~(np.abs(values) < _MAX_VALUE)
    with suppress(TypeError, ValueError):  # there is no such field, or it does not contain a number
        is_missing |= values == np.float32(no_data)
    values = np.where(is_missing, np.float32(0), values)
    white = float(values.max())
    following = float(values.max(where=values < white, initial=0.0))
    if 0 < following * _MAX_JUMP < white:
        return np.where(values == white, np.float32(0), values), following
    return values, max(1e-9, white)
