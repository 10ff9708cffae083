"""Convert the pixels of every mode of Pillow to 8-bit RGB."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, TiffImagePlugin

from worker.vision.formats.tiff import PREMULTIPLIED

_WITH_ALPHA: Final = {"RGBA", "LA", "PA"}
_NO_DATA: Final = 42_113
"""Tag in which GDAL stores, as a text, the value of the pixels without a value."""
_MAX_VALUE: Final = 1e20
"""A floating-point value of this or more is not a measured one. Programs write such values where a value is missing, for
example the largest one that can be stored."""
_MAX_JUMP: Final = 1000.0
"""If a value is this many times larger than all others, it marks pixels without a value."""
_USUAL_MARKERS: Final = (999, 9999, 99_999, 999_999, 32_767, 32_768, 65_535)
"""Values that programs write, also with a minus sign, where a value is missing."""
_MIN_MARKER_JUMP: Final = 10.0
"""If such a value is this many times larger than all others of its sign, it marks pixels without a value."""
_MAX_MARKERS: Final = 8
"""Limit for the number of other such values in an image."""


def to_rgb(image: Image.Image, extra_sample: int | None = None) -> Image.Image:
    """Convert an image to the mode RGB. Where it is transparent, white shows through.

    :param extra_sample: the meaning of the last channel of a TIFF, as ``tiff.read_extra_sample`` returns it.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey_to_uint8(image)).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if _is_without_alpha(image, rgba, extra_sample):
            return rgba.convert("RGB")
        if extra_sample == PREMULTIPLIED:
            return _add_white(rgba)
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _add_white(rgba: Image.Image) -> Image.Image:
    """Convert an image to the mode RGB whose colours have been multiplied by the opacity."""
    white = ImageChops.invert(rgba.getchannel("A"))
    return ImageChops.add(rgba.convert("RGB"), Image.merge("RGB", (white, white, white)))


def _is_without_alpha(image: Image.Image, rgba: Image.Image, extra_sample: int | None) -> bool:
    """Return whether the last channel of a BMP or TIFF does not contain the opacity.

    Many programs reserve this channel and fill it with zeros. In a TIFF, its meaning is unspecified if there is no field
    that describes it (TIFF 6.0, section 18).
    """
    if image.format == "TIFF" and not extra_sample:
        return True
    return image.format in {"BMP", "TIFF"} and rgba.getchannel("A").getextrema() == (0, 0)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _grey_to_uint8(image: Image.Image) -> NDArray[np.uint8]:
    """Reduce grey values with more than 8 bits to 8 bits.

    For values with up to 16 bits, white is the maximum of the bit depth. For values with more bits, white is the
    largest value in the image. Black is zero, or the smallest value if it is negative. Pixels without a value are black.
    """
    tags = _tags(image)
    values = np.asarray(image)
    if image.mode == "I" and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow stores these unsigned values in a signed type
    scaled = values.astype(np.float32)
    del values  # an image of 50 megapixels needs 200 MB for each copy
    if image.mode.startswith("I;16"):
        black, white = 0.0, 2.0 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    else:
        black, white = _clean(scaled, tags.get(_NO_DATA))
    scaled -= black
    scaled /= max(1e-9, white - black)
    scaled *= 255
    grey = scaled.clip(0, 255, out=scaled).astype(np.uint8)
    # If zero means white, Pillow inverts the values of an image with up to 8 bits, but not those of an image with more.
    zero_is_white = bool(tags) and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0
    return 255 - grey if zero_is_white else grey


def _clean(values: NDArray[np.float32], no_data: Any) -> tuple[float, float]:
    """Replace, in place, the values of pixels without a value by that of black. Return black and white.

    A pixel has no value if its value is infinite, not a number, excessive, the value that the file names, far from the
    values of all other pixels, or a usual marker that is not near them.

    :param no_data: the text in the field that names the value of pixels without a value, or None.
    """
    is_known = np.abs(values) < _MAX_VALUE
    with suppress(TypeError, ValueError):  # there is no such field, or it does not contain a number
        is_known &= values != np.float32(no_data)
    is_known &= ~_find_markers(values, is_known)
    lowest = float(values.min(where=is_known, initial=np.inf))
    black = lowest if lowest < 0 else 0.0
    white = float(values.max(where=is_known, initial=-np.inf))
    np.copyto(values, black, where=~is_known)
    return black, max(black, white)


def _find_markers(values: NDArray[np.float32], is_known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the values mark pixels without a value, because they are far from the others.

    :param is_known: where the pixels have a value, as far as is known.
    """
    magnitudes = np.abs(values)
    is_usual = np.isin(magnitudes, _USUAL_MARKERS)
    is_ordinary = is_known & ~is_usual
    for _ in range(_MAX_MARKERS):
        largest = magnitudes.max(where=is_ordinary, initial=0)
        is_smaller = is_ordinary & (magnitudes < largest)
        if not 0 < magnitudes.max(where=is_smaller, initial=0) * _MAX_JUMP < largest:
            break
        is_ordinary = is_smaller
    if magnitudes.max(where=is_ordinary, initial=0) == 0:
        return np.zeros_like(is_known)
    highest, lowest = values.max(where=is_ordinary, initial=0), values.min(where=is_ordinary, initial=0)
    is_near = (values <= highest * _MIN_MARKER_JUMP) & (values >= lowest * _MIN_MARKER_JUMP)
    is_marker: NDArray[np.bool_] = ~is_ordinary & ~(is_usual & is_near)
    return is_marker
