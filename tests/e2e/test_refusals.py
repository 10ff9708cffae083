"""A refusal reaches the client: whoever says no before the body was read reads on for a while, so that no reset comes first."""

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.servers import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SIZE = 16 * 2**20
JSON = {"Content-Type": "application/json"}


def pieces() -> Iterator[bytes]:
    """Send a body step by step, so that a closed connection shows."""
    for _ in range(SIZE // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/upload_image_batch", {"Authorization": "Bearer x"}, 401),
        ("/upload_image_batch", {"Host": "evil.example"}, 421),
        ("/upload_image_batch", {"Origin": "http://evil.example"}, 403),
        ("/upload_image_batch", {"Content-Type": "text/plain"}, 415),
        ("/upload_image_batch", {"Content-Encoding": "gzip"}, 400),
        ("/upload_image_batch", {"Idempotency-Key": " "}, 422),
        ("/nowhere", {}, 404),
    ],
)
def test_an_early_refusal_is_read_and_not_a_reset(stack: Stack, path: str, headers: dict[str, str], status: int) -> None:
    where = urlsplit(stack.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    connection.request("POST", path, pieces(), {**JSON, "Content-Length": str(SIZE), **headers})
    answer = connection.getresponse()
    assert answer.status == status
    assert answer.read().startswith(b"{")
    connection.close()
