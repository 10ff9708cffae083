"""Uploads through nginx: slow ones hold up nobody, large ones are refused in words."""

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
_MAX_UPLOADS: Final = 512
"""Uploads at a time: ``limit_conn`` of deploy/nginx/shelfsight.conf."""
_EXTRA_UPLOADS: Final = 8
_LARGE_BODY_BYTES: Final = 60 * 1024 * 1024
_MAX_PAGE_S: Final = 3.0
"""A page beside 200 slow uploads, on two cores that everything shares."""


def test_200_slow_uploads_are_all_accepted_and_nobody_waits_for_them(url: str, say: Callable[[str], None]) -> None:
    source = random.Random(200)

    async def both() -> tuple[list[int], list[float]]:
        uploads = [asyncio.create_task(upload_slowly(url, draw_valid_image(source), _SLOW_S)) for _ in range(_SLOW_UPLOADS)]
        await asyncio.sleep(1)  # all are connected
        seconds = []
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for number in range(_PAGE_REQUESTS):
                began = time.monotonic()
                (await client.get(("/", "/image_batches", "/limits")[number % 3])).raise_for_status()
                seconds.append(time.monotonic() - began)
                await asyncio.sleep(_SLOW_S / 2 / _PAGE_REQUESTS)
        assert not any(task.done() for task in uploads), "they were to be slow"
        return list(await asyncio.gather(*uploads)), seconds

    statuses, seconds = asyncio.run(both())
    assert statuses == [202] * _SLOW_UPLOADS
    assert max(seconds) < _MAX_PAGE_S
    say(f"slowest of {len(seconds)} pages beside {_SLOW_UPLOADS} slow uploads: {max(seconds) * 1000:.0f} ms")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(url: str) -> None:
    with contextlib.closing(begin_upload(urlsplit(url), 67108865, b"[")) as connection:
        problem = read_problem(connection)
    assert (problem["status"], problem["code"], problem["limit"], problem["value"]) == (413, "body_too_large", "max_body_bytes", 67108864)
    assert problem["request_id"]


def test_headers_that_are_too_large_are_refused_in_words(client: httpx.Client) -> None:
    answer = client.get("/limits", headers={"X-Long": "x" * 20_000})
    assert (answer.status_code, answer.headers["content-type"], answer.json()["code"]) == (431, "application/problem+json", "headers_too_large")
    answer = client.get("/limits?" + "x" * 20_000)
    assert (answer.status_code, answer.json()["code"]) == (414, "uri_too_long")


def test_more_uploads_at_once_than_are_taken_are_told_to_come_again(url: str) -> None:
    at = urlsplit(url)
    with contextlib.ExitStack() as open_ones:
        connections = [open_ones.enter_context(contextlib.closing(begin_upload(at, 1000, b"["))) for _ in range(_MAX_UPLOADS + _EXTRA_UPLOADS)]
        told = [read_problem(connection) for connection in wait_for_responses(connections, _EXTRA_UPLOADS)]
    assert len(told) == _EXTRA_UPLOADS
    assert {(problem["status"], problem["code"]) for problem in told} == {(429, "too_many_requests")}


def test_bodies_for_which_there_is_no_room_are_refused_and_the_room_comes_back(url: str, client: httpx.Client) -> None:
    at = urlsplit(url)
    with contextlib.ExitStack() as open_ones:
        connections = [open_ones.enter_context(contextlib.closing(begin_upload(at, _LARGE_BODY_BYTES + 1, b"["))) for _ in range(5)]  # 300 MB for 256
        for connection in connections:
            with contextlib.suppress(ConnectionError):  # refused on the way
                connection.sendall(b" " * (_LARGE_BODY_BYTES - 1))
        told = [read_problem(connection) for connection in wait_for_responses(connections, 1)]
        assert {(problem["status"], problem["code"]) for problem in told} == {(503, "unavailable")}
        assert client.get("/image_batches").status_code == 200
    wait_until(lambda: client.post("/upload_image_batch", content=b"[" + b" " * _LARGE_BODY_BYTES + b"]").status_code == 422, 60, "there is room again")


def begin_upload(at: SplitResult, length: int, first: bytes) -> socket.socket:
    """Begin an upload."""
    connection = socket.create_connection((str(at.hostname), int(at.port or 80)), timeout=20)
    head = f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + first)
    return connection


def wait_for_responses(connections: list[socket.socket], number: int) -> list[socket.socket]:
    """Wait until so many have been answered; give these, and who else was within half a second."""
    answered: list[socket.socket] = []
    poll = select.poll()  # a thousand descriptors are too many for select
    by_descriptor = {connection.fileno(): connection for connection in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    while answered_now := poll.poll(500 if len(answered) >= number else 20_000):
        for descriptor, _ in answered_now:
            poll.unregister(descriptor)
            answered.append(by_descriptor[descriptor])
    assert len(answered) >= number
    return answered


def read_problem(connection: socket.socket) -> dict[str, Any]:
    """Read an answer that is a problem document."""
    with connection.makefile("rb") as answer:
        assert answer.readline().startswith(b"HTTP/1.1 ")
        headers = dict(line.decode().lower().strip().split(": ", 1) for line in iter(answer.readline, b"\r\n"))
        assert headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(answer.read(int(headers["content-length"])))
    return problem


def test_only_uploads_may_bring_much(client: httpx.Client) -> None:
    for path in ("/limits", f"/uploads/{'0' * 36}.jpg"):
        answer = client.post(path, content=b" " * 70_000)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert (answer.json()["limit"], answer.json()["value"]) == ("max_body_bytes", 65536)
