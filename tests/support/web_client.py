"""A client of the real web application over a real database, and pictures to send."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from shared import settings
from web.app import create_app
from web.services import Services

opened: list[Services] = []
"""Services of the clients made by the running test; closed after it."""


class BufferedClient(FlaskClient):
    """Reads and closes every answer, as a server would."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """See ``FlaskClient``."""
        return super().open(*args, **{"buffered": True, **kwargs})


def picture(seed: int = 1, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """Make a small picture; another seed, another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, kind)
    return buffer.getvalue()


def item(data: bytes | None = None, **said: Any) -> dict[str, Any]:
    """Make one image of an upload."""
    file = base64.b64encode(picture() if data is None else data).decode()
    return {"file": file, "timestamp": "2026-01-01T00:00:00Z", "store_name": "north", "camera_id": 7, **said}


def client(
    mongo: settings.Mongo,
    blobs: Path,
    redis_url: str = "redis://127.0.0.1:1/0",
    *,
    threads: int = 16,
    inspect: settings.Inspect | None = None,
    **limits: Any,
) -> FlaskClient:
    """Make a client. Unless told otherwise Redis is away: nothing of accepting may need it."""
    made = settings.Settings(
        mongo=mongo,
        redis=settings.Redis(url=redis_url),
        blobs=settings.Blobs(root=blobs, min_free_bytes=limits.pop("min_free_bytes", 0)),
        limits=settings.Limits(**limits),
        web=settings.Web(threads=threads),
        inspect=inspect or settings.Inspect(),
        log=settings.Logging(level="CRITICAL"),
    )
    app = create_app(made)
    app.test_client_class = BufferedClient
    opened.append(app.extensions["shelfsight"])
    return app.test_client()


def post(web: FlaskClient, body: Any, **headers: str) -> TestResponse:
    """Upload: a body as it is, or anything else as JSON."""
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return web.post("/upload_image_batch", data=data, headers=sent)
