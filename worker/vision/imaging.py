"""Decode image files strictly to upright RGB arrays, resize the arrays, and encode JPEGs.

libjpeg-turbo decodes JPEGs, and it reports damage (see ``jpeg_decoder``). Pillow decodes all other formats, but it does
not always report damage, so the structure of the file is checked first (see ``formats``). The limits on the size are
compared with the header before anything is decoded.
"""

import io
import warnings
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from shared.media_types import sniff
from worker.vision import color_profiles, color_spaces, exif, formats, jpeg_decoder, pixel_modes
from worker.vision.errors import VisionError
from worker.vision.formats import avif, bmp, jpeg, jpeg_header, png, tiff

Rgb = NDArray[np.uint8]

JPEG_QUALITY: Final = 90
_MAX_SIDE: Final = 65_500
"""Limit of the longest side in pixels. It is libjpeg's JPEG_MAX_DIMENSION, because all variants are JPEGs."""
THUMB_SIDE: Final = 320
"""Longest side of a thumbnail in pixels."""
DISPLAY_SIDE: Final = 700
"""Longest side, in pixels, of the displayed image of an inspection."""
_QUARTER_TURNS: Final = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""
_GREY_MODES: Final = ("1", "L", "I", "F")
"""Prefixes of Pillow's names for modes without colour."""
_GREEN: Final = (25, 224, 127)


@dataclass(slots=True)
class DecodedImage:
    """A decoded image.

    ``rgb`` is ``[H, W, 3]``, uint8, sRGB, upright and C-contiguous. ``width`` and ``height`` are the dimensions of the
    upright image at full size; ``rgb`` can be smaller, see ``decode``. ``format`` is a key of
    ``shared.media_types.SIGNATURES``. ``mode`` is Pillow's name for the file's pixel format, for example ``RGB``,
    ``P``, ``CMYK`` or ``I;16``. ``frames`` is the number of frames or pages in the file. ``exif`` holds selected EXIF
    fields. ``profile`` is the ICC colour profile, or empty if there is none.
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
        """The description in the colour profile; None if the profile is missing, unreadable or too large."""
        return color_profiles.describe(self.profile)


def is_plain_jpeg(data: bytes, *, max_pixels: int) -> bool:
    """Return whether a file is an ordinary JPEG within ``max_pixels``. Such a file may be decoded outside the sandbox.

    :param max_pixels: limit of width x height.
    """
    header = jpeg_decoder.read_header(data)
    if header is None:
        return False
    height, width, space = header
    if space not in {"YCbCr", "Gray"} or height * width > max_pixels or not jpeg.is_plain(data):
        return False
    profile = jpeg_header.read_icc_profile(data)
    return not profile or color_profiles.is_simple(profile)


def limit_threads(count: int) -> None:
    """Limit the number of threads that OpenCV and Pillow's AVIF decoder use in this process.

    Without a limit, the AVIF decoder uses all cores.
    """
    cv2.setNumThreads(count)
    AvifImagePlugin.DEFAULT_MAX_THREADS = count


def read_pixel_count(data: bytes) -> int | None:
    """Return width x height from a file's header, without running a decoder, which could crash.

    :returns: None if the size cannot be read from the header.
    """
    header = jpeg_decoder.read_header(data)
    size = header[:2] if header is not None else formats.read_size(sniff(data), data)
    return None if size is None else size[0] * size[1]


def decode(data: bytes, *, max_pixels: int, min_side: int | None = None) -> DecodedImage:
    """Decode an image file and rotate the image upright. For an animation, only the first frame is decoded.

    :param max_pixels: limit of width x height.
    :param min_side: number of pixels that the caller needs on the longest side of the result. If the longest side of a
        JPEG is at least ``2 * min_side``, the JPEG is decoded at a reduced size. The longest side of the result is then
        still at least ``min_side``. This takes a fraction of the time, because libjpeg leaves out high frequencies.
        ``width`` and ``height`` of the result are still the dimensions of the full-size image.
    :raises VisionError: ``empty``, ``unsupported_format``, ``too_many_pixels``, ``truncated``, ``corrupt``,
        ``out_of_memory``.
    """
    if not data:
        raise VisionError("empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, max_pixels, min_side)
        except VisionError:
            raise
        except Exception as error:  # decoders raise many kinds of exceptions for damaged files
            raise VisionError(_error_code(error)) from error


def encode_jpeg(rgb: Rgb, quality: int = JPEG_QUALITY) -> bytes:
    """Encode an image ``[H, W, 3]``, uint8, as a JPEG with 4:2:0 chroma subsampling.

    :param quality: 1 to 100.
    """
    if simplejpeg := jpeg_decoder.simplejpeg():
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420"))
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def thumbnail(rgb: Rgb, longest: int = THUMB_SIDE) -> Rgb:
    """Reduce an image ``[H, W, 3]`` by area averaging so that its longest side has ``longest`` pixels.

    A smaller image is returned unchanged.
    """
    height, width = rgb.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    reduced: Rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return reduced


def resize_for_display(rgb: Rgb) -> Rgb:
    """Reduce an image ``[H, W, 3]`` so that its longest side has ``DISPLAY_SIDE`` pixels.

    A smaller image is returned unchanged. First, bilinear interpolation reduces the image by a factor of less than 2 to
    an integer multiple of the final size. Then area averaging reduces it by this integer, which is fast because the
    sides divide evenly.

    For shelf photos that are reduced from 1280 to 700 pixels, the result has a PSNR of 51 dB relative to the result of
    Pillow's bicubic filter, and is computed in a ninth of the time that Pillow needs. Area averaging alone would give a
    PSNR of 53 dB, but it takes longer than the two steps.
    """
    height, width = rgb.shape[:2]
    ratio = max(height, width) / DISPLAY_SIDE
    if ratio <= 1:
        return rgb
    size = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    factor = int(ratio)
    multiple = cv2.resize(rgb, (factor * size[0], factor * size[1]), interpolation=cv2.INTER_LINEAR)
    reduced: Rgb = cv2.resize(multiple, size, interpolation=cv2.INTER_AREA)
    return reduced


def draw_boxes(rgb: Rgb, detections: list[dict[str, Any]]) -> Rgb:
    """Return a copy of an image ``[H, W, 3]``, uint8, with the boxes, labels and scores of detections drawn on it.

    :param detections: each is ``{"label", "score", "box"}``; ``box`` is x1, y1, x2, y2 in pixels.
    """
    drawn = rgb.copy()
    line = max(2, round(max(rgb.shape[:2]) / 400))
    scale = max(0.4, max(rgb.shape[:2]) / 1600)
    for detection in detections:
        x1, y1, x2, y2 = (round(value) for value in detection["box"])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _GREEN, line)
        text = f"{detection['label']} {detection['score']:.2f}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        top = max(0, y1 - height - 2 * line)
        cv2.rectangle(drawn, (x1, top), (x1 + width + 2 * line, top + height + 2 * line), _GREEN, -1)
        cv2.putText(drawn, text, (x1 + line, top + height + line), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), max(1, line // 2), cv2.LINE_AA)  # fmt: skip
    return drawn


def _decode(data: bytes, max_pixels: int, min_side: int | None) -> DecodedImage:
    kind = sniff(data)
    if kind is None:
        raise VisionError("unsupported_format")
    # Some decoders allocate the whole canvas as soon as they open a file. Before they do so, Pillow rejects an image
    # that has more than twice as many pixels as this value.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    try:
        normalized = formats.normalize(kind, data)
        opened = Image.open(io.BytesIO(normalized), formats=(kind,))
    except Image.DecompressionBombError:
        raise VisionError("too_many_pixels") from None
    except Exception as error:
        formats.check(kind, data)  # raises "truncated" if the file is incomplete but otherwise valid
        # The file is intact, but Pillow does not support its encoding.
        if kind == "tiff" and isinstance(error, UnidentifiedImageError):
            raise VisionError("unsupported_format") from error
        raise
    with opened as image:
        if image.width * image.height > max_pixels or max(image.size) > _MAX_SIDE:
            raise VisionError("too_many_pixels")
        mode = image.mode  # the mode must be read before the frames and pixels, because reading them can change it
        exif.remove_xmp(image)
        frames = _check(kind, data) or int(getattr(image, "n_frames", 1))
        pixels = _decode_pixels(image, kind, data, normalized, min_side)
        orientation, fields = exif.read(image)  # the EXIF data must be read last, because in a PNG they can follow the pixels
        width, height = reversed(image.size) if orientation in _QUARTER_TURNS else image.size
        profile = _read_icc_profile(image, kind, data)
    pixel_mode = "CMYK" if pixels.shape[2] == len("CMYK") else "L" if mode.startswith(_GREY_MODES) else "RGB"
    space = None if pixel_mode == "CMYK" else _read_color_space(kind, data, profile)
    rgb = color_profiles.to_srgb(pixels, color_spaces.build_profile(space, pixel_mode) if space else profile, pixel_mode)
    return DecodedImage(_make_upright(rgb, orientation), kind, mode, width, height, frames, fields, profile)


def _read_icc_profile(image: Image.Image, kind: str, data: bytes) -> bytes:
    """Return the colour profile in a file; empty if there is none."""
    if kind == "png":
        return png.read_icc_profile(data, color_profiles.MAX_BYTES)
    if kind == "bmp":
        return bmp.read_icc_profile(data, color_profiles.MAX_BYTES)
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else b""


def _read_color_space(kind: str, data: bytes, profile: bytes) -> color_spaces.ColorSpace | None:
    """Return the colour space that a file describes by other means than its colour profile; None if there is none."""
    if kind == "png":
        return color_spaces.from_png_chunks(png.read_colour_chunks(data))
    if kind == "avif" and not profile and (code_points := avif.read_code_points(data)):
        return color_spaces.from_code_points(*code_points)
    return None


def _check(kind: str, data: bytes) -> int:
    """Verify that a file is complete, like ``formats.check``. The end marker of a JPEG may be missing.

    :returns: the number of frames; 0 if the decoder counts them.
    """
    try:
        return formats.check(kind, data)
    except VisionError as error:
        # The decoder appends the marker. Then libjpeg-turbo notices missing pixels, but Pillow would not.
        may_be_whole = kind == "jpeg" and jpeg_decoder.simplejpeg() is not None and jpeg_header.lacks_only_end(data)
        if error.code != "truncated" or not may_be_whole:
            raise
        return 1


def _decode_pixels(
    image: Image.Image, kind: str, data: bytes, normalized: bytes, min_side: int | None
) -> NDArray[np.uint8]:
    """Decode the pixels of an opened image to RGB ``[H, W, 3]`` or CMYK ``[H, W, 4]``.

    :param normalized: the result of ``formats.normalize`` for ``data``.
    """
    if kind == "jpeg" and jpeg_decoder.simplejpeg():
        if image.mode == "CMYK":
            return jpeg_decoder.decode_cmyk(normalized)
        return jpeg_decoder.decode(normalized, size=image.size, min_side=min_side)
    image.load()
    if kind == "png":
        png.check_pixels(data)
    extra_sample = tiff.read_extra_sample(data) if kind == "tiff" else None
    return np.asarray(image if image.mode == "CMYK" else pixel_modes.to_rgb(image, extra_sample))


def _error_code(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text:  # Pillow's message if a decoder returns the error -9
        return "out_of_memory"
    if "unsupported bmp" in text or "not supported" in text:
        return "unsupported_format"
    is_truncated = "truncated" in text or "premature" in text or "unexpected end" in text or isinstance(error, EOFError)
    return "truncated" if is_truncated else "corrupt"


def _make_upright(rgb: Rgb, orientation: int) -> Rgb:
    """Rotate and flip an image according to its EXIF orientation, 1 to 8. Any other value leaves it unchanged."""
    if orientation in {2, 4, 5, 7}:
        rgb = rgb[:, ::-1] if orientation in {2, 5, 7} else rgb[::-1]
    quarter_turns = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns))
