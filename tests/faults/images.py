"""Images for the upload load: small, all different, and a few that crash a decoder or exhaust memory."""

import hashlib
import io
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

SIZE: Final = (320, 240)
MODEL_CRASHING_SIZE: Final = (312, 232)


@dataclass(frozen=True, slots=True)
class UploadImage:
    """An encoded image. ``expected_code`` is the error code that it must fail with, or None for a valid image."""

    data: bytes
    extension: str
    expected_code: str | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 digest of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def draw_valid_image(generator: random.Random) -> UploadImage:
    """Return coloured bars that no other image has. One image in five is a PNG, the others are JPEGs."""
    colours = np.frombuffer(generator.randbytes(8 * 6 * 3), np.uint8).reshape(6, 8, 3)
    pixels = Image.fromarray(np.kron(colours, np.ones((SIZE[1] // 6, SIZE[0] // 8, 1), np.uint8)))
    return _encode(pixels, "png" if generator.random() < 0.2 else "jpg")


def draw_crashing_image(generator: random.Random, extension: str) -> UploadImage:
    """Return an image for ``FaultPlan.crash_on``: a process that decodes it gets a segmentation fault."""
    valid = draw_valid_image(generator)
    with Image.open(io.BytesIO(valid.data)) as image:
        encoded = _encode(image.convert("RGB"), extension)
    return UploadImage(encoded.data, extension, "decoder_crash")


def draw_hanging_image(generator: random.Random) -> UploadImage:
    """Return a JPEG for ``FaultPlan.hang_on``: a process that reads its header hangs."""
    return draw_crashing_image(generator, "jpg")


def draw_model_crashing_image(generator: random.Random) -> UploadImage:
    """Return a JPEG for ``FaultPlan.crash_model_on(MODEL_CRASHING_SIZE)``: a process whose model gets it crashes."""
    with Image.open(io.BytesIO(draw_valid_image(generator).data)) as image:
        encoded = _encode(image.convert("RGB").crop((0, 0, *MODEL_CRASHING_SIZE)), "jpg")
    return UploadImage(encoded.data, "jpg", "decoder_crash")


def make_decompression_bomb(generator: random.Random) -> UploadImage:
    """Return a real decompression bomb within the pixel limit: 49 megapixels in a file of about 50 KB."""
    buffer = io.BytesIO()
    image = Image.new("RGB", (7000, 7000), tuple(generator.randbytes(3)))
    image.save(buffer, "PNG", compress_level=9)
    return UploadImage(buffer.getvalue(), "png", "out_of_memory")


def _encode(image: Image.Image, extension: str) -> UploadImage:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "png": "PNG"}[extension])
    return UploadImage(buffer.getvalue(), extension)
