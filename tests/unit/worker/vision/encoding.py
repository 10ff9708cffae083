"""Helpers for the tests of decoding: small images, and their encoded form."""

import io
import struct
from typing import Any

import numpy as np
from hypothesis import settings
from PIL import Image, ImageCms

MAX = 50_000_000
several = settings(deadline=None, max_examples=200, database=None, derandomize=True)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8))


RED = Image.new("RGB", (40, 30), (200, 30, 30))


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_with_description(text: bytes) -> bytes:
    """Return a profile with that description in UTF-16, in a tag at the end (ICC.1:2022, 10.15)."""
    profile = bytearray(srgb())
    entry = next(offset for offset in range(132, len(profile), 12) if profile[offset : offset + 4] == b"desc")
    tag = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28) + text
    profile[entry + 4 : entry + 12] = struct.pack(">II", len(profile), len(tag))
    profile += tag + bytes(-len(tag) % 4)
    profile[:4] = struct.pack(">I", len(profile))
    return bytes(profile)


def avif_box(name: bytes, *parts: bytes) -> bytes:
    """Return a box of an AVIF file."""
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)
