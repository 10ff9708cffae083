"""Helpers for the tests of JPEGs with harmless faults and with damage: encode one, and decode it to pixels or an error code."""

from typing import Any, Final

from PIL import Image

from tests.support.crafted_images import draw_image, encode_image
from worker.vision import imaging
from worker.vision.errors import VisionError
from worker.vision.imaging import Rgb

MAX: Final = 50_000_000
PHOTO: Final = draw_image(size=(200, 120))
NIGHT: Final = PHOTO.convert("L").convert("RGB")
"""Without colour, most restart intervals end with eight zero bits, and some with a zero byte."""
END: Final = b"\xff\xd9"


def encode(image: Image.Image = PHOTO, **options: Any) -> bytes:
    return encode_image(image, "JPEG", quality=90, **options)


def read(data: bytes) -> Rgb:
    return imaging.decode(data, max_pixels=MAX).rgb


def error_code(data: bytes) -> str | None:
    try:
        read(data)
    except VisionError as error:
        return error.code
    return None
