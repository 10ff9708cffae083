"""Bytes to upright RGB, strictly, and RGB to JPEG.

A plain JPEG goes through libjpeg-turbo (simplejpeg), which is strict about damage; everything else through Pillow. Sizes are
taken from the header before anything is decoded.
"""

import io
import re
import warnings
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from worker.vision.errors import VisionError

try:
    import simplejpeg
except ImportError:  # a machine without it: Pillow does the same, slower
    simplejpeg = None

Rgb = NDArray[np.uint8]

QUALITY: Final = 90
_SCANS: Final = 32
_SEGMENTS: Final = 10_000
_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker with a length, or the end: no stuffed zero, restart, fill byte or start of image (ITU T.81, B.1.1)."""
_LONGEST: Final = 65_500
"""Longest side of a JPEG, in which all that is made of a picture is kept (libjpeg's JPEG_MAX_DIMENSION)."""
THUMB_SIDE: Final = 320
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_EXIF_KEPT: Final = ("Make", "Model", "Software", "DateTime", "DateTimeOriginal", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength", "Flash", "LensModel")  # fmt: skip
_EXIF_TEXT: Final = 200
_GREEN: Final = (25, 224, 127)


@dataclass(slots=True)
class Picture:
    """A decoded picture: ``rgb`` is ``[height, width, 3]``, upright and contiguous; ``frames`` counts an animation's."""

    rgb: Rgb
    format: str
    width: int
    height: int
    frames: int = 1
    exif: dict[str, Any] = field(default_factory=dict)


def is_plain_jpeg(data: bytes, *, max_pixels: int) -> bool:
    """Say whether a picture is an ordinary JPEG, which may be decoded in the worker itself."""
    if simplejpeg is None or data[:3] != b"\xff\xd8\xff":
        return False
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError:
        return False
    # A progressive file may ask for thousands of passes over all pixels.
    return space in {"YCbCr", "Gray"} and height * width <= max_pixels and data.count(b"\xff\xda") <= _SCANS


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a picture and turn it upright.

    :raises VisionError: ``empty``, ``unsupported_format``, ``too_many_pixels``, ``truncated``, ``corrupt``, ``out_of_memory``.
    """
    if not data:
        raise VisionError("empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, max_pixels)
        except VisionError:
            raise
        except MemoryError as error:
            raise VisionError("out_of_memory") from error
        except UnidentifiedImageError as error:
            raise VisionError("corrupt") from error
        except Exception as error:  # decoders raise whatever they like; every kind means damage
            text = str(error).lower()
            short = "truncated" in text or "premature" in text or "unexpected end" in text or isinstance(error, EOFError)
            raise VisionError("truncated" if short else "corrupt") from error


def encode_jpeg(rgb: Rgb, quality: int = QUALITY) -> bytes:
    """Write a JPEG of ``[H, W, 3]`` RGB."""
    if simplejpeg is not None:
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420"))
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def thumbnail(rgb: Rgb, longest: int = THUMB_SIDE) -> Rgb:
    """Make the picture smaller so that its longest side is ``longest``; never larger."""
    height, width = rgb.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def draw_boxes(rgb: Rgb, detections: list[dict[str, Any]]) -> Rgb:
    """Draw detections into a copy of the picture."""
    drawn = rgb.copy()
    line = max(2, round(max(rgb.shape[:2]) / 400))
    scale = max(0.4, max(rgb.shape[:2]) / 1600)
    for found in detections:
        x1, y1, x2, y2 = (round(value) for value in found["box"])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _GREEN, line)
        text = f"{found['label']} {found['score']:.2f}"
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        top = max(0, y1 - high - 2 * line)
        cv2.rectangle(drawn, (x1, top), (x1 + wide + 2 * line, top + high + 2 * line), _GREEN, -1)
        cv2.putText(drawn, text, (x1 + line, top + high + line), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), max(1, line // 2), cv2.LINE_AA)  # fmt: skip
    return drawn


def _decode(data: bytes, max_pixels: int) -> Picture:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # our own limit holds, and says so with a code
    try:
        opened = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise VisionError("corrupt" if _is_known(data) else "unsupported_format") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with opened as image:
        if image.width * image.height > max_pixels or max(image.size) > _LONGEST:
            raise VisionError("too_many_pixels")
        exif = image.getexif()
        turn = exif.get(ExifTags.Base.Orientation, 1)
        kept = _exif(exif)
        name = str(image.format).lower()
        frames = int(getattr(image, "n_frames", 1))
        if name == "jpeg" and simplejpeg is not None and image.mode in {"RGB", "L"}:
            _check_end(data)
            rgb = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        else:
            image.load()
            rgb = np.asarray(_to_rgb(image))
        upright = _upright(rgb, turn)
    return Picture(upright, name, upright.shape[1], upright.shape[0], frames, kept)


def _check_end(data: bytes) -> None:
    """A JPEG that is cut short between its scans decodes without a complaint; it lacks its end marker.

    Whatever follows that marker (cameras append films, for one) is no part of the picture.
    """
    at = 2
    for _ in range(_SEGMENTS):
        marker = _MARKER.search(data, at)
        if marker is None:
            raise VisionError("truncated")
        if marker[0] == b"\xff\xd9":
            return
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    raise VisionError("corrupt")


def _is_known(data: bytes) -> bool:
    return data[:3] == b"\xff\xd8\xff" or data[:4] in {b"\x89PNG", b"RIFF", b"GIF8", b"II*\x00", b"MM\x00*"} or data[:2] == b"BM"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bit and more: the high byte, or the value's own range
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode.startswith("I") else max(1e-9, float(np.nanmax(values)))
        return Image.fromarray(np.clip(np.nan_to_num(values) / top * 255, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _upright(rgb: Rgb, turn: int) -> Rgb:
    """Apply an EXIF orientation (1..8)."""
    if turn in {2, 4, 5, 7}:
        rgb = rgb[:, ::-1] if turn in {2, 5, 7} else rgb[::-1]
    quarter = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(turn, 0)
    return np.ascontiguousarray(np.rot90(rgb, quarter))


def _exif(exif: Image.Exif) -> dict[str, Any]:
    """Keep the fields of a white list; where the picture was taken is only said to be known."""
    named = {ExifTags.TAGS.get(tag, ""): value for tag, value in exif.items()}
    try:
        named |= {ExifTags.TAGS.get(tag, ""): value for tag, value in exif.get_ifd(ExifTags.IFD.Exif).items()}
        has_gps = bool(exif.get_ifd(ExifTags.IFD.GPSInfo))
    except Exception:  # noqa: BLE001 -- a damaged block says nothing, and the picture is fine
        has_gps = False
    kept: dict[str, Any] = {}
    for name in _EXIF_KEPT:
        value = _plain(named.get(name))
        if value is not None:
            kept[name] = value
    if has_gps:
        kept["has_gps"] = True
    return kept


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return value.replace("\0", "").strip()[:_EXIF_TEXT] or None
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if np.isfinite(number) else None
