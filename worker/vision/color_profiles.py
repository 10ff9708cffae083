"""Convert pixels from the colours of an ICC profile to sRGB, in which the service writes and measures all images."""

import hashlib
import io
import logging
import struct
import threading
from collections import OrderedDict
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_log = logging.getLogger(__name__)

MAX_BYTES: Final = 4 * 1024**2
"""A colour profile with more bytes than this is not parsed. The profile of a printer has about one million bytes."""
_MAX_TEXT: Final = 200
_MAX_SIMPLE_BYTES: Final = 1 << 16
_MAX_SIMPLE_TAGS: Final = 64
_CURVES: Final = {b"curv", b"para"}
_LOOKUP_TABLES: Final = (b"A2B", b"B2A", b"D2B", b"B2D", b"gamt", b"ncl2")
_DEVICE_CLASSES: Final = {"mntr", "scnr", "prtr", "spac"}
_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""The name of a profile's colour space for each mode of pixels (ICC.1:2022, 7.2.6)."""
_MAX_CACHED: Final = 16
_STRIP_PIXELS: Final = 1 << 18
"""Number of pixels that are converted at once, so that little memory is needed."""
_TOLERANCE: Final = 2
"""If a profile changes no colour by more than this, it describes sRGB, and the pixels are left unchanged."""

_Pixels = NDArray[np.uint8]
_Transform = ImageCms.ImageCmsTransform

_cache: OrderedDict[tuple[bytes, str], _Transform | None] = OrderedDict()
_lock = threading.Lock()


def to_srgb(pixels: _Pixels, profile: bytes, mode: str) -> _Pixels:
    """Convert an image ``[H, W, C]``, uint8, to sRGB ``[H, W, 3]``.

    A profile that is damaged, too long, or made for another kind of pixels is ignored.

    :param mode: ``RGB``; ``CMYK``, where 0 means no ink; or ``L`` for RGB pixels whose three channels are equal.
    """
    transform = _find_transform(profile, mode)
    if transform is None:
        return pixels if mode != "CMYK" else np.asarray(Image.fromarray(pixels, "CMYK").convert("RGB"))
    if mode == "L":
        curve = _apply(transform, np.arange(256, dtype=np.uint8)[None], mode)
        return np.asarray(cv2.LUT(pixels, curve), np.uint8)
    height, width = pixels.shape[:2]
    converted = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        converted[top : top + rows] = _apply(transform, pixels[top : top + rows], mode)
    return converted


def describe(profile: bytes) -> str | None:
    """Return the description in a profile; None if it is empty, or the profile is unreadable, too long, or missing."""
    if not 0 < len(profile) <= MAX_BYTES:
        return None
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.debug("The colour profile cannot be read: %s", type(error).__name__)
        return None
    # A malicious profile can contain control characters, so they are removed.
    return "".join(filter(str.isprintable, name[:_MAX_TEXT])).strip() or None


def is_simple(profile: bytes) -> bool:
    """Return whether a profile consists of a matrix and curves only, and is short and well-formed.

    Cameras and phones write such profiles. Others are read only in the sandbox, because they are complex to parse.
    """
    try:
        length, count = *struct.unpack_from(">I", profile), *struct.unpack_from(">I", profile, 128)
        if not length == len(profile) <= _MAX_SIMPLE_BYTES or profile[36:40] != b"acsp" or count > _MAX_SIMPLE_TAGS:
            return False
        tags = [struct.unpack_from(">4sII", profile, 132 + 12 * index) for index in range(count)]
    except struct.error:
        return False
    return all(offset + size <= length and _is_simple_tag(profile, name, offset) for name, offset, size in tags)


def _is_simple_tag(profile: bytes, name: bytes, offset: int) -> bool:
    return not name.startswith(_LOOKUP_TABLES) and (name[1:] != b"TRC" or profile[offset : offset + 4] in _CURVES)


def _apply(transform: _Transform, pixels: _Pixels, mode: str) -> _Pixels:
    return np.asarray(transform.apply(Image.fromarray(pixels, mode)))


def _find_transform(profile: bytes, mode: str) -> _Transform | None:
    """Return the transform from a profile to sRGB; None if there is none, or if it would change nothing.

    Transforms are kept by the digest of the profile, because they take longer to build than to apply to an image.
    """
    if not 0 < len(profile) <= MAX_BYTES:
        return None
    key = hashlib.sha256(profile).digest(), mode
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    transform = _build_transform(profile, mode)
    with _lock:
        _cache[key] = transform
        if len(_cache) > _MAX_CACHED:
            _cache.popitem(last=False)
    return transform


def _build_transform(profile: bytes, mode: str) -> _Transform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode] or source.profile.device_class not in _DEVICE_CLASSES:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _log.debug("The colour profile cannot be used: %s", type(error).__name__)
        return None
    return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: _Transform, mode: str) -> bool:
    """Apply a transform to colours all over the cube, or to all greys, and return whether it leaves them as they are."""
    levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3) if mode == "RGB" else levels[None]
    expected = colours if mode == "RGB" else np.repeat(colours[..., None], 3, -1)
    return int(np.abs(_apply(transform, colours, mode).astype(int) - expected).max()) <= _TOLERANCE
