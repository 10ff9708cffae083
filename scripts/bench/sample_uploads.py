"""Create uploads at run time: real JPEGs of about 200 KB, all different, and request bodies that contain them."""

import base64
import gzip
import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (1280, 960)
JPEG_BYTES = 200_000
_TOLERANCE = 0.05


def draw_jpeg(seed: int, size: int = JPEG_BYTES) -> bytes:
    """Draw a JPEG of 1280 x 960 pixels with soft colours, shapes, and enough noise for ``size`` bytes +- 5%."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 215, (12, 16, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(coarse)
    for _ in range(12):
        x, y = int(rng.integers(0, SIZE[0] - 200)), int(rng.integers(0, SIZE[1] - 200))
        colour = tuple(int(part) for part in rng.integers(0, 255, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + int(rng.integers(60, 200)), y + int(rng.integers(60, 200))), fill=colour)
    soft = np.asarray(coarse.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)
    noise = rng.normal(0, 1, (*soft.shape[:2], 1)).astype(np.float32)
    low, high = 0.0, 24.0
    data = b""
    for _ in range(12):  # bisection, because the size increases with the noise
        strength = (low + high) / 2
        stream = io.BytesIO()
        Image.fromarray(np.clip(soft + strength * noise, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        data = stream.getvalue()
        if abs(len(data) - size) <= _TOLERANCE * size:
            break
        low, high = (strength, high) if len(data) < size else (low, strength)
    return data


@dataclass(frozen=True, slots=True)
class Upload:
    """A body for ``POST /upload_image_batch`` with its media type.

    ``inflated`` is the length of the uncompressed body in bytes.
    """

    body: bytes
    content_type: str
    inflated: int
    gzipped: bool = False


def json_upload(images: list[bytes]) -> Upload:
    """Create an upload of images as base64 in JSON, as a camera's script would send it."""
    items = [{"file": base64.b64encode(data).decode(), **_metadata(number)} for number, data in enumerate(images)]
    body = json.dumps(items).encode()
    return Upload(body, "application/json", len(body))


def multipart_upload(images: list[bytes]) -> Upload:
    """Create an upload of images as ``multipart/form-data``, with the same metadata as in ``json_upload``."""
    boundary = "bench-border-7d3f"
    parts = [
        _part(boundary, 'name="metadata"', "application/json", json.dumps([_metadata(n) for n in range(len(images))]).encode())
    ]
    parts += [_part(boundary, f'name="file"; filename="{n}.jpg"', "image/jpeg", data) for n, data in enumerate(images)]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return Upload(body, f"multipart/form-data; boundary={boundary}", len(body))


def gzip_upload(plain: Upload) -> Upload:
    """Return the upload ``plain`` with its body compressed by gzip."""
    return Upload(gzip.compress(plain.body, 1), plain.content_type, plain.inflated, gzipped=True)


def _part(boundary: str, disposition: str, content_type: str, data: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {content_type}\r\n\r\n"
    return head.encode() + data + b"\r\n"


def _metadata(number: int) -> dict[str, str]:
    return {
        "timestamp": "2025-06-01T12:00:00Z",
        "store_name": f"bench-{number % 4}",
        "camera_id": f"cam-{number}",
        "filename": f"{number}.jpg",
    }
