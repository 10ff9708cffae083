"""A refusal reaches the client: whoever says no before the body was read reads on for a while, so that no reset comes first."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.service_stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BODY_BYTES = 16 * 2**20
JSON = {"Content-Type": "application/json"}


def body_chunks() -> Iterator[bytes]:
    """Send a body step by step, so that a closed connection shows."""
    for _ in range(BODY_BYTES // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/upload_image_batch", {"Authorization": "Bearer x"}, 401),
        ("/upload_image_batch", {"Host": "evil.example"}, 421),
        ("/upload_image_batch", {"Origin": "http://evil.example"}, 403),
        ("/upload_image_batch", {"Content-Type": "text/plain"}, 415),
        ("/upload_image_batch", {"Content-Encoding": "gzip"}, 400),
        ("/nowhere", {}, 404),
    ],
)
def test_an_early_refusal_is_read_and_not_a_reset(stack: Stack, path: str, headers: dict[str, str], status: int) -> None:
    where = urlsplit(stack.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    for more in (True, True, False):
        began = time.monotonic()
        try:
            connection.request("POST", path, body_chunks(), {**JSON, "Content-Length": str(BODY_BYTES), **headers})
            answer = connection.getresponse()
            break
        except ConnectionError:
            if not more or time.monotonic() - began <= 2:  # it reads on for 2 s, which a stall may outlast
                raise
            connection.close()
    assert answer.status == status
    assert answer.read().startswith(b"{")
    connection.close()


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET /healthz?a=" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /healthz?store_name=Main Street HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name<script>: 1\r\n\r\n", 400, "bad_request"),
    ],
)
def test_what_never_reaches_the_application_is_a_problem_too(stack: Stack, request_: bytes, status: int, code: str) -> None:
    where = urlsplit(stack.url)
    with socket.create_connection((where.hostname, where.port), 60) as connection:
        connection.sendall(request_)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (body["status"], body["code"], body["request_id"]) == (status, code, answer.headers["X-Request-ID"])
    assert "script" not in json.dumps(body)
