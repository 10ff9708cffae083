"""Uploads made at run time: real JPEGs of about 200 KB, each different, and the bodies that carry them."""

import base64
import gzip
import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDES = (1280, 960)
BYTES = 200_000
_TOLERANCE = 0.05


def jpeg(seed: int, size: int = BYTES) -> bytes:
    """Draw a picture of 1280 x 960: soft colours, a few things on a shelf, and as much grain as makes a JPEG of so many bytes +- 5%."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 215, (12, 16, 3), dtype=np.uint8)).resize(SIDES, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(coarse)
    for _ in range(12):
        x, y = int(rng.integers(0, SIDES[0] - 200)), int(rng.integers(0, SIDES[1] - 200))
        colour = tuple(int(part) for part in rng.integers(0, 255, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + int(rng.integers(60, 200)), y + int(rng.integers(60, 200))), fill=colour)
    soft = np.asarray(coarse.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)
    grain = rng.normal(0, 1, (*soft.shape[:2], 1)).astype(np.float32)
    low, high = 0.0, 24.0
    data = b""
    for _ in range(12):  # the size grows with the grain: halve the interval
        strength = (low + high) / 2
        stream = io.BytesIO()
        Image.fromarray(np.clip(soft + strength * grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        data = stream.getvalue()
        if abs(len(data) - size) <= _TOLERANCE * size:
            break
        low, high = (strength, high) if len(data) < size else (low, strength)
    return data


@dataclass(frozen=True, slots=True)
class Upload:
    """A body for ``POST /upload_image_batch`` with its media type; ``inflated`` is its length in bytes before gzip."""

    body: bytes
    content_type: str
    inflated: int
    gzipped: bool = False


def upload(images: list[bytes]) -> Upload:
    """Make the JSON body that a camera's script would send."""
    items = [{"file": base64.b64encode(data).decode(), **_metadata(number)} for number, data in enumerate(images)]
    body = json.dumps(items).encode()
    return Upload(body, "application/json", len(body))


def multipart(images: list[bytes]) -> Upload:
    """Make the same upload as a form."""
    border = "bench-border-7d3f"
    parts = [
        _part(border, 'name="metadata"', "application/json", json.dumps([_metadata(n) for n in range(len(images))]).encode())
    ]
    parts += [_part(border, f'name="file"; filename="{n}.jpg"', "image/jpeg", data) for n, data in enumerate(images)]
    body = b"".join([*parts, f"--{border}--\r\n".encode()])
    return Upload(body, f"multipart/form-data; boundary={border}", len(body))


def gzipped(plain: Upload) -> Upload:
    """Give the same upload compressed."""
    return Upload(gzip.compress(plain.body, 1), plain.content_type, plain.inflated, gzipped=True)


def _part(border: str, disposition: str, kind: str, data: bytes) -> bytes:
    head = f"--{border}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {kind}\r\n\r\n"
    return head.encode() + data + b"\r\n"


def _metadata(number: int) -> dict[str, str]:
    return {
        "timestamp": "2025-06-01T12:00:00Z",
        "store_name": f"bench-{number % 4}",
        "camera_id": f"cam-{number}",
        "filename": f"{number}.jpg",
    }
