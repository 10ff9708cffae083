"""Pictures for the load: small, each different, and a few that do harm."""

import hashlib
import io
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

SIZE: Final = (320, 240)


@dataclass(frozen=True, slots=True)
class UploadImage:
    """An encoded picture. ``harm`` is the code that it must fail with; None for a good one."""

    data: bytes
    ending: str
    harm: str | None = None

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.data).hexdigest()


def draw_valid_image(source: random.Random) -> UploadImage:
    """Draw coloured bars that no other picture has; one in five is a PNG."""
    colours = np.frombuffer(source.randbytes(8 * 6 * 3), np.uint8).reshape(6, 8, 3)
    pixels = Image.fromarray(np.kron(colours, np.ones((SIZE[1] // 6, SIZE[0] // 8, 1), np.uint8)))
    return _encode(pixels, "png" if source.random() < 0.2 else "jpg")


def draw_crashing_image(source: random.Random, ending: str) -> UploadImage:
    """Give a picture for ``Plan.poison``: whoever decodes it gets a segmentation fault."""
    drawn = draw_valid_image(source)
    with Image.open(io.BytesIO(drawn.data)) as image:
        encoded = _encode(image.convert("RGB"), ending)
    return UploadImage(encoded.data, ending, "decoder_crash")


def make_decompression_bomb(source: random.Random) -> UploadImage:
    """Give a real decompression bomb within the limit on pixels: 49 megapixels in a file of some 50 KB."""
    buffer = io.BytesIO()
    image = Image.new("RGB", (7000, 7000), tuple(source.randbytes(3)))
    image.save(buffer, "PNG", compress_level=9)
    return UploadImage(buffer.getvalue(), "png", "out_of_memory")


def _encode(image: Image.Image, ending: str) -> UploadImage:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "png": "PNG"}[ending])
    return UploadImage(buffer.getvalue(), ending)
