"""A test client for the real web application with a real database, and functions that make uploads."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from argon2.profiles import CHEAPEST
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from shared import settings
from shared.accounts.passwords import PasswordHasher
from web.app import create_app
from web.services import Services

open_services: list[Services] = []
"""The services behind all clients that the running test has created. A fixture closes these services after the test."""


class BufferedClient(FlaskClient):
    """A client that reads each response completely and closes it, as a server does."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Send a request, and return the buffered response."""
        return super().open(*args, **{"buffered": True, **kwargs})


def make_image(seed: int = 1, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """Return a small encoded image. Different seeds result in different images."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, kind)
    return buffer.getvalue()


def image_payload(data: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """Return the JSON object for one image in an upload. ``fields`` are added to its members or replace them."""
    file = base64.b64encode(make_image() if data is None else data).decode()
    return {"file": file, "timestamp": "2026-01-01T00:00:00Z", "store_name": "north", "camera_id": 7, **fields}


def make_client(
    mongo: settings.Mongo,
    blobs: Path,
    redis_url: str = "redis://127.0.0.1:1/0",
    *,
    threads: int = 16,
    proxies: str = "[]",
    inspect: settings.Inspect | None = None,
    access: settings.Access | None = None,
    rates: settings.Rates | None = None,
    **limits: Any,
) -> FlaskClient:
    """Return a test client for a new application, whose hashes of passwords are cheap. It keeps no cookies.

    By default, Redis is unreachable, because accepting a batch must not depend on Redis.

    :param proxies: the trusted proxies, as in ``WEB_TRUSTED_PROXIES``.
    :param limits: values for ``settings.Limits``, and ``min_free_bytes`` for ``settings.Blobs``.
    """
    app_settings = settings.Settings(
        mongo=mongo,
        redis=settings.Redis(url=redis_url),
        blobs=settings.Blobs(root=blobs, min_free_bytes=limits.pop("min_free_bytes", 0)),
        limits=settings.Limits(**limits),
        web=settings.Web.model_validate({"threads": threads, "trusted_proxies": proxies}),
        inspect=inspect or settings.Inspect(),
        access=access or settings.Access(),
        rates=rates or settings.Rates(),
        log=settings.Logging(level="CRITICAL"),
    )
    app = create_app(app_settings)
    app.test_client_class = BufferedClient
    services = app.extensions["shelfsight"]
    # The parameters that the service uses cost a tenth of a second for each hash.
    services.password_hasher = PasswordHasher(2, 30, CHEAPEST)
    open_services.append(services)
    return app.test_client(use_cookies=False)  # with them, it would drop the header Cookie of a request


def post_batch(web: FlaskClient, body: Any, **headers: str) -> TestResponse:
    """Post an upload. A body of type ``bytes`` or ``str`` is sent unchanged, and any other body is encoded as JSON."""
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    all_headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return web.post("/upload_image_batch", data=data, headers=all_headers)
