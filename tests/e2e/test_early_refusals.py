"""A rejection reaches the client.

A server that rejects a request before it has read the body reads on for some time, because closing the connection at once would
send a reset that can arrive before the response.
"""

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
    """Yield a body in chunks, so that the client notices a closed connection."""
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
def test_a_client_receives_an_early_rejection_instead_of_a_reset(stack: Stack, path: str, headers: dict[str, str], status: int) -> None:
    address = urlsplit(stack.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    for may_retry in (True, True, False):
        began = time.monotonic()
        try:
            connection.request("POST", path, body_chunks(), {**JSON, "Content-Length": str(BODY_BYTES), **headers})
            response = connection.getresponse()
            break
        except ConnectionError:
            if not may_retry or time.monotonic() - began <= 2:  # the server reads on for 2 s, but a stall can take longer
                raise
            connection.close()
    assert response.status == status
    assert response.read().startswith(b"{")
    connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /healthz?a=" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /healthz?store_name=Main Street HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name<script>: 1\r\n\r\n", 400, "bad_request"),
    ],
)
def test_a_request_that_gunicorn_rejects_is_answered_with_a_problem_document(stack: Stack, request_bytes: bytes, status: int, code: str) -> None:
    address = urlsplit(stack.url)
    with socket.create_connection((address.hostname, address.port), 60) as connection:
        connection.sendall(request_bytes)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = json.loads(response.read())
    assert (response.status, response.headers["Content-Type"]) == (status, "application/problem+json")
    assert (body["status"], body["code"], body["request_id"]) == (status, code, response.headers["X-Request-ID"])
    assert "script" not in json.dumps(body)


@pytest.mark.parametrize(("sent", "is_kept"), [(b"mine-1", True), (b"not valid", False)])
def test_the_id_of_a_request_whose_headers_gunicorn_has_parsed_is_kept(stack: Stack, sent: bytes, *, is_kept: bool) -> None:
    address = urlsplit(stack.url)
    with socket.create_connection((address.hostname, address.port), 60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: " + sent + b"\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = json.loads(response.read())
    assert (response.status, body["request_id"]) == (400, response.headers["X-Request-ID"])
    assert (body["request_id"] == sent.decode()) == is_kept
