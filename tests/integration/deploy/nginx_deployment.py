"""nginx in front of a web process while access is on: what its tests send and compare."""

import http.client
import json
import socket
import ssl
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.accounts.signed_urls import PURPOSE, UrlSigner
from shared.accounts.signing_keys import FixedSigningKeys
from shared.storage.blob_keys import image_prefix, original_key
from shared.storage.mongo import Db
from tests.support.accounts import SIGNING_KEYS
from tests.support.gunicorn_front import WebFront
from tests.support.nginx_front import HAS_NJS, Nginx
from tests.support.web_client import make_image

NEEDS_NGINX = [pytest.mark.slow, pytest.mark.skipif(not HAS_NJS, reason="nginx or its njs module is not installed")]
ORIGINAL, RENDITION, BOXES = make_image(kind="PNG"), b"the rendition", b"the boxes"
OTHER_IMAGE = "0" * 36
NEW_KEYS = {"new": "zyxwvutsrqponmlkjihgfedcba9876543210"}
ACCESS = {"ACCESS": "on", "SIGNING_KEYS": json.dumps(SIGNING_KEYS)}
OTHER_ORIGIN = "https://labels.example.org"
CORS = {"CORS_ORIGINS": json.dumps([OTHER_ORIGIN])}
SERVER_HEADERS = {"server", "date", "connection", "x-request-id", "keep-alive", "referrer-policy", "ratelimit", "ratelimit-policy"}
UNIMPORTANT_HEADERS = {206: {"accept-ranges"}, 304: {"accept-ranges", "last-modified"}, 401: {"cache-control", "vary"}}
"""Headers that clients do not need in a response of this status, so either server may leave them out."""


def signing_keys(secrets: dict[str, str]) -> FixedSigningKeys:
    return FixedSigningKeys({key_id: secret.encode() for key_id, secret in secrets.items()})


def derived_keys(secrets: dict[str, str]) -> dict[str, bytes]:
    return dict(signing_keys(secrets).current().derive(PURPOSE))


def query_of(image: str, secrets: dict[str, str] | None = None, now: float | None = None) -> str:
    """Return the query that a web process with these signing keys adds to the URLs of an image."""
    clock = {} if now is None else {"clock": lambda: now}
    return UrlSigner(signing_keys(secrets or SIGNING_KEYS), 3600, **clock).begin().query(f"/uploads/{image}")


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def comparable(self) -> tuple[int, dict[str, str], bytes]:
        """Return what nginx and a web process must have in common."""
        ignored = SERVER_HEADERS | UNIMPORTANT_HEADERS.get(self.status, set())
        return self.status, {name: value for name, value in self.headers.items() if name not in ignored}, self.body


def request(port: int, path: str, method: str = "GET", tls: ssl.SSLContext | None = None, /, **headers: str) -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30) if tls is None else http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=tls)
    with closing(connection):
        connection.request(method, path, headers={"X-Request-ID": "test", **headers})
        return read(connection.getresponse())


def read(response: http.client.HTTPResponse) -> Response:
    return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


@dataclass(frozen=True, slots=True)
class Deployment:
    """nginx with a web process behind it, another nginx whose web process is stopped, and an image that is done."""

    nginx: Nginx
    alone: Nginx
    web: WebFront
    database: Db
    image: str
    blobs: Path


def write_files(blobs: Path, image: str, fence: int = 1) -> None:
    """Write the files of a PNG that is done."""
    variants = blobs / image_prefix(image) / str(fence)
    variants.mkdir(parents=True)
    (variants.parent / "live").symlink_to(str(fence))
    (blobs / original_key(image, "png")).write_bytes(ORIGINAL)
    (variants / "rendition.jpg").write_bytes(RENDITION)
    (variants / "boxes.jpg").write_bytes(BOXES)


def begin_upload(stack: ExitStack, port: int, path: str, length: int, start: bytes = b"", /, **headers: str) -> socket.socket:
    """Send the head of an upload, and the first bytes of its body."""
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}", "X-Request-ID: test"]
    client.sendall("\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + start)
    return client


def read_answer(client: socket.socket) -> Response:
    with http.client.HTTPResponse(client) as response:
        response.begin()
        return read(response)
