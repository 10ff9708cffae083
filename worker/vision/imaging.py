"""Bytes to upright RGB, strictly, and RGB to JPEG.

A plain JPEG goes through libjpeg-turbo (simplejpeg), which is strict about damage; everything else through Pillow, which is
not, so that a file is walked to its end first. Sizes are taken from the header before anything is decoded.
"""

import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from shared.media_types import sniff
from worker.vision import formats
from worker.vision.errors import VisionError
from worker.vision.formats import jpeg, png

Rgb = NDArray[np.uint8]
Grey = NDArray[np.uint8]

_log = logging.getLogger(__name__)

QUALITY: Final = 90
_LONGEST: Final = 65_500
"""Longest side of a JPEG, in which all that is made of a picture is kept (libjpeg's JPEG_MAX_DIMENSION)."""
THUMB_SIDE: Final = 320
SHOWN_SIDE: Final = 700
"""Longest side at which a picture given by URL is shown."""
_HEAD: Final = 32
"""Bytes that a format is told by."""
_EXIF_KEPT: Final = ("Make", "Model", "Software", "DateTime", "DateTimeOriginal", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength", "Flash", "LensModel")  # fmt: skip
_MOST_TEXT: Final = 200
_MOST_PROFILE: Final = 4 * 1024**2
"""Bytes of a colour profile that is looked into. A printer's takes about one million."""
_QUARTER_TURNS: Final = {5, 6, 7, 8}
_GREEN: Final = (25, 224, 127)


@dataclass(slots=True)
class Picture:
    """A decoded picture: ``rgb`` is ``[height, width, 3]``, upright and contiguous; ``frames`` counts an animation's.

    ``mode`` is Pillow's name of how the file keeps its colours (``RGB``, ``P``, ``CMYK``, ``I;16``); ``profile`` its colour profile.
    """

    rgb: Rgb
    format: str
    mode: str
    width: int
    height: int
    frames: int = 1
    exif: dict[str, Any] = field(default_factory=dict)
    profile: bytes = b""

    @property
    def icc(self) -> str | None:
        """Name the colour profile, as it calls itself; None where there is none, or none that can be read."""
        if not 0 < len(self.profile) <= _MOST_PROFILE:
            return None
        try:
            name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(self.profile)))
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            _log.debug("damaged colour profile: %s", type(error).__name__)
            return None
        return "".join(filter(str.isprintable, name[:_MOST_TEXT])).strip() or None  # a hostile one holds control characters


def is_plain_jpeg(data: bytes, *, max_pixels: int) -> bool:
    """Say whether a picture is an ordinary JPEG, which may be decoded in the worker itself."""
    header = _jpeg_header(data)
    if header is None:
        return False
    height, width, space = header
    return space in {"YCbCr", "Gray"} and height * width <= max_pixels and jpeg.is_plain(data)


def use_threads(count: int) -> None:
    """Bound the threads that OpenCV and Pillow's decoder of AVIF, which takes all cores otherwise, may use in this process."""
    cv2.setNumThreads(count)
    AvifImagePlugin.DEFAULT_MAX_THREADS = count


def pixels(data: bytes) -> int | None:
    """Read off a picture's header how many pixels it has; None where that takes a decoder that may crash."""
    header = _jpeg_header(data)
    size = header[:2] if header is not None else formats.size(sniff(data[:_HEAD]), data)
    return None if size is None else size[0] * size[1]


def decode(data: bytes, *, max_pixels: int, least: int | None = None) -> Picture:
    """Decode a picture and turn it upright.

    :param least: a longest side that will do: a JPEG of twice that or more is decoded smaller, at no less than that (libjpeg leaves out
        high frequencies, which takes a fraction of the time). ``width`` and ``height`` are the file's all the same.
    :raises VisionError: ``empty``, ``unsupported_format``, ``too_many_pixels``, ``truncated``, ``corrupt``, ``out_of_memory``.
    """
    if not data:
        raise VisionError("empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, max_pixels, least)
        except VisionError:
            raise
        except Exception as error:  # decoders raise whatever they like; every kind means damage
            raise VisionError(_code(error)) from error


def encode_jpeg(rgb: Rgb, quality: int = QUALITY) -> bytes:
    """Write a JPEG of ``[H, W, 3]`` RGB."""
    if turbo := _turbo():
        return bytes(turbo.encode_jpeg(np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420"))
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


def shown(rgb: Rgb) -> Rgb:
    """Make the picture smaller so that its longest side is ``SHOWN_SIDE``; never larger.

    What of the ratio is whole is done by area, which is quick where it divides evenly; what is left, less than twice, is bilinear.
    On shelf photos from 1280 to 700 that is 51 dB from Pillow's bicubic, by area alone 53, for a ninth of the time.
    """
    height, width = rgb.shape[:2]
    ratio = max(height, width) / SHOWN_SIDE
    if ratio <= 1:
        return rgb
    size = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    whole = int(ratio)
    even = cv2.resize(rgb, (whole * size[0], whole * size[1]), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(even, size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


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


@cache
def _turbo() -> Any:
    """Give simplejpeg; None on a machine without it, where Pillow does the same, slower."""
    try:
        import simplejpeg  # on first use: this is its one place
    except ImportError:
        return None
    return simplejpeg


def _jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """Give height, width and colour space; None where it is no JPEG that simplejpeg reads."""
    turbo = _turbo()
    if turbo is None or data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, space, _ = turbo.decode_jpeg_header(data, strict=True)
    except ValueError:
        return None
    return int(height), int(width), str(space)


def _decode(data: bytes, max_pixels: int, least: int | None) -> Picture:
    kind = sniff(data[:_HEAD])
    if kind is None:
        raise VisionError("unsupported_format")
    # Some decoders allocate the whole canvas as soon as they open a file; Pillow refuses more than twice this before they do.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    try:
        opened = Image.open(io.BytesIO(formats.needed(kind, data)), formats=(kind,))
    except Image.DecompressionBombError:
        raise VisionError("too_many_pixels") from None
    except Exception as error:
        formats.check(kind, data)  # says so when it is only cut short
        if kind == "tiff" and isinstance(error, UnidentifiedImageError):  # whole, but kept in a way that Pillow does not know
            raise VisionError("unsupported_format") from error
        raise
    with opened as image:
        if image.width * image.height > max_pixels or max(image.size) > _LONGEST:
            raise VisionError("too_many_pixels")
        mode = image.mode  # of the file: reading frames or pixels may change it
        frames = formats.check(kind, data) or int(getattr(image, "n_frames", 1))
        turbo = _turbo() if kind == "jpeg" else None
        if turbo is not None and mode == "CMYK":
            inks = turbo.decode_jpeg(data, colorspace="CMYK", strict=True)  # inverted, as Adobe writes them
            np.subtract(255, inks, out=inks)
            rgb = np.asarray(_to_rgb(Image.frombuffer("CMYK", image.size, inks, "raw", "CMYK", 0, 1)))
        elif turbo is not None:
            rgb = turbo.decode_jpeg(data, colorspace="RGB", strict=True, **_reduced(image.size, least))
        else:
            image.load()
            if kind == "png":
                png.check_filled(data)
            rgb = np.asarray(_to_rgb(image))
        turn, kept = _exif(image)  # last: a PNG's may follow its pixels
        width, height = reversed(image.size) if turn in _QUARTER_TURNS else image.size
        profile = png.profile(data, _MOST_PROFILE) if kind == "png" else image.info.get("icc_profile")
    return Picture(_upright(rgb, turn), kind, mode, width, height, frames, kept, profile if isinstance(profile, bytes) else b"")


def _reduced(size: tuple[int, int], least: int | None) -> dict[str, int]:
    """Say how simplejpeg is to decode a picture of this width and height, so that its longest side is no less than ``least``."""
    if least is None:
        return {}
    return {"min_width" if size[0] >= size[1] else "min_height": least, "min_factor": 2}


def _code(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text:  # the second is what Pillow makes of its decoders' -9
        return "out_of_memory"
    if "unsupported bmp" in text or "not supported" in text:
        return "unsupported_format"
    short = "truncated" in text or "premature" in text or "unexpected end" in text or isinstance(error, EOFError)
    return "truncated" if short else "corrupt"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image) -> Grey:
    """Bring grey of more than 8 bits down to 8: white is the most that 16 bits or fewer can hold, else the most that there is."""
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    values = np.asarray(image)
    if image.mode == "I" and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow keeps what has no sign as if it had one
    if image.mode.startswith("I;16"):
        white = 2.0 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    else:
        white = max(1e-9, float(np.nanmax(values)))
    grey: Grey = np.clip(np.nan_to_num(values.astype(np.float32)) / white * 255, 0, 255).astype(np.uint8)
    zero_is_white = bool(tags) and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0  # Pillow turns 8 bits and fewer only
    return 255 - grey if zero_is_white else grey


def _upright(rgb: Rgb, turn: int) -> Rgb:
    """Apply an EXIF orientation (1..8)."""
    if turn in {2, 4, 5, 7}:
        rgb = rgb[:, ::-1] if turn in {2, 5, 7} else rgb[::-1]
    quarter = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(turn, 0)
    return np.ascontiguousarray(np.rot90(rgb, quarter))


def _exif(image: Image.Image) -> tuple[int, dict[str, Any]]:
    """Give the orientation and the fields of a white list; where the picture was taken is only said to be known.

    A damaged block says nothing, and the picture is fine.
    """
    turn: Any = 1
    kept: dict[str, Any] = {}
    try:
        exif = image.getexif()
        turn = exif.get(ExifTags.Base.Orientation)
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        for name in _EXIF_KEPT:
            tag = ExifTags.Base[name]
            value = _plain(inner.get(tag, exif.get(tag)))
            if value is not None:
                kept[name] = value
        if exif.get_ifd(ExifTags.IFD.GPSInfo):
            kept["has_gps"] = True
    except Exception as error:  # noqa: BLE001 -- Pillow raises whatever it likes
        _log.debug("damaged EXIF: %s", type(error).__name__)
    return turn if isinstance(turn, int) else 1, kept


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return value.replace("\0", "").strip()[:_MOST_TEXT] or None
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if np.isfinite(number) else None
