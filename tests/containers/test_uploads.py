"""Uploads through nginx: slow uploads delay no other client, and large ones are rejected with a problem document."""

import asyncio
import contextlib
import json
import random
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx

from tests.containers.slow_upload import upload_slowly
from tests.faults.images import draw_valid_image
from tests.support.service_stack import wait_until

_SLOW_UPLOADS: Final = 200
_SLOW_S: Final = 15.0
_PAGE_REQUESTS: Final = 40
_MAX_UPLOADS: Final = 512 + 128
"""Maximum number of concurrent uploads with tiny bodies: those that nginx buffers, and those that it passes on."""
_EXTRA_UPLOADS: Final = 64
_ENDED_OR_REFUSED: Final = {(408, "body_too_slow"), (429, "too_many_requests")}
_LARGE_BODY_BYTES: Final = 60 * 1024 * 1024
_SMALL_BODY_BYTES: Final = 999_990
_MAX_PAGE_S: Final = 3.0
"""Time limit of a page during 200 slow uploads, on two cores shared by all containers."""


def test_200_slow_uploads_are_all_accepted_and_delay_no_page(url: str, report: Callable[[str], None]) -> None:
    generator = random.Random(200)

    async def upload_and_browse() -> tuple[list[int], list[float]]:
        uploads = [asyncio.create_task(upload_slowly(url, draw_valid_image(generator), _SLOW_S)) for _ in range(_SLOW_UPLOADS)]
        await asyncio.sleep(1)  # wait until all are connected
        seconds = []
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for number in range(_PAGE_REQUESTS):
                began = time.monotonic()
                (await client.get(("/", "/image_batches", "/limits")[number % 3])).raise_for_status()
                seconds.append(time.monotonic() - began)
                await asyncio.sleep(_SLOW_S / 2 / _PAGE_REQUESTS)
        assert not any(task.done() for task in uploads), "an upload was not slow enough"
        return list(await asyncio.gather(*uploads)), seconds

    statuses, seconds = asyncio.run(upload_and_browse())
    assert statuses == [202] * _SLOW_UPLOADS
    assert max(seconds) < _MAX_PAGE_S
    report(f"slowest of {len(seconds)} pages during {_SLOW_UPLOADS} slow uploads: {max(seconds) * 1000:.0f} ms")


def test_a_body_that_is_too_large_is_rejected_before_it_is_sent(url: str) -> None:
    with contextlib.closing(begin_upload(urlsplit(url), 67108865, b"[")) as connection:
        problem = read_problem(connection)
    assert (problem["status"], problem["code"], problem["limit"], problem["value"]) == (413, "body_too_large", "max_body_bytes", 67108864)
    assert problem["request_id"]


def test_headers_that_are_too_large_are_rejected_with_a_problem_document(client: httpx.Client) -> None:
    response = client.get("/limits", headers={"X-Long": "x" * 20_000})
    assert (response.status_code, response.headers["content-type"], response.json()["code"]) == (431, "application/problem+json", "headers_too_large")
    response = client.get("/limits?" + "x" * 20_000)
    assert (response.status_code, response.json()["code"]) == (414, "uri_too_long")


def test_uploads_above_the_connection_limit_are_rejected_with_429(url: str) -> None:
    address = urlsplit(url)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(begin_upload(address, 1000, b"["))) for _ in range(_MAX_UPLOADS + _EXTRA_UPLOADS)]
        problems = [read_problem(connection) for connection in wait_for_responses(connections, _EXTRA_UPLOADS)]
    codes = [(problem["status"], problem["code"]) for problem in problems]
    assert len(problems) >= _EXTRA_UPLOADS
    assert (429, "too_many_requests") in codes
    assert set(codes) <= _ENDED_OR_REFUSED  # a web process ends some of those that are not buffered


def test_large_uploads_that_stall_leave_space_for_others(url: str, client: httpx.Client) -> None:
    address = urlsplit(url)
    with contextlib.ExitStack() as stack:
        for _ in range(5):  # two of them fit into five eighths of 256 MB
            connection = stack.enter_context(contextlib.closing(begin_upload(address, _LARGE_BODY_BYTES + 1, b"[")))
            connection.sendall(b" " * (_LARGE_BODY_BYTES - 1))
        image = draw_valid_image(random.Random(9))
        assert asyncio.run(upload_slowly(url, image, 1)) == 202
        wait_until(lambda: client.post("/upload_image_batch", content=b"[" + b" " * _LARGE_BODY_BYTES + b"]").status_code == 422, 60, "a large upload is read")


def test_bodies_that_exceed_the_upload_buffer_are_not_buffered(url: str, client: httpx.Client) -> None:
    address = urlsplit(url)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(begin_upload(address, _SMALL_BODY_BYTES + 1, b"["))) for _ in range(300)]  # 300 MB, the upload buffer has 256 MB
        for connection in connections:
            with contextlib.suppress(ConnectionError):  # refused while it is sent
                connection.sendall(b" " * (_SMALL_BODY_BYTES - 1))
        problems = [read_problem(connection) for connection in wait_for_responses(connections, 1)]
        assert {(problem["status"], problem["code"]) for problem in problems} <= _ENDED_OR_REFUSED
        assert client.get("/image_batches").status_code == 200
    wait_until(lambda: client.post("/upload_image_batch", content=b"[" + b" " * _LARGE_BODY_BYTES + b"]").status_code == 422, 60, "the upload buffer has space again")


def begin_upload(address: SplitResult, length: int, first: bytes) -> socket.socket:
    """Send the header section and the first bytes of an upload, and return the connection."""
    connection = socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=20)
    head = f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + first)
    return connection


def wait_for_responses(connections: list[socket.socket], number: int) -> list[socket.socket]:
    """Wait until ``number`` connections have a response. Return these and all others that have one within half a second."""
    ready: list[socket.socket] = []
    poll = select.poll()  # the descriptors may be above the limit of 1024 of select
    by_descriptor = {connection.fileno(): connection for connection in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    while events := poll.poll(500 if len(ready) >= number else 20_000):
        for descriptor, _ in events:
            poll.unregister(descriptor)
            ready.append(by_descriptor[descriptor])
    assert len(ready) >= number
    return ready


def read_problem(connection: socket.socket) -> dict[str, Any]:
    """Read a response and return its problem document."""
    with connection.makefile("rb") as response:
        assert response.readline().startswith(b"HTTP/1.1 ")
        headers = dict(line.decode().lower().strip().split(": ", 1) for line in iter(response.readline, b"\r\n"))
        assert headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(response.read(int(headers["content-length"])))
    return problem


def test_only_uploads_may_have_a_large_body(client: httpx.Client) -> None:
    for path in ("/limits", f"/uploads/{'0' * 36}.jpg"):
        response = client.post(path, content=b" " * 70_000)
        assert (response.status_code, response.headers["content-type"]) == (413, "application/problem+json")
        assert (response.json()["limit"], response.json()["value"]) == ("max_json_bytes", 65536)
