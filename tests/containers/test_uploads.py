"""Uploads through nginx: slow ones hold up nobody, large ones are refused in words."""

import asyncio
import base64
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx

from tests.faults.pictures import good

_SLOW: Final = 200
_SLOW_S: Final = 15.0
_PIECES: Final = 30
_BROWSES: Final = 40
_PATIENCE_S: Final = 3.0
"""A page beside 200 slow uploads, on two cores that everything shares."""


async def slowly(host: str, port: int, body: bytes) -> int:
    """Send a body in pieces over ``_SLOW_S`` seconds; give the status."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    step = -(-len(body) // _PIECES)
    for begin in range(0, len(body), step):
        writer.write(body[begin : begin + step])
        await writer.drain()
        await asyncio.sleep(_SLOW_S / _PIECES)
    line = await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    return int(line.split()[1])


def test_200_slow_uploads_are_all_accepted_and_nobody_waits_for_them(url: str, say: Callable[[str], None]) -> None:
    at = urlsplit(url)
    source = random.Random(200)
    image = {"timestamp": 1_700_000_000, "store_name": "slow", "camera_id": 1}
    bodies = [json.dumps([image | {"file": base64.b64encode(good(source).data).decode()}]).encode() for _ in range(_SLOW)]

    async def both() -> tuple[list[int], list[float]]:
        uploads = [asyncio.create_task(slowly(str(at.hostname), int(at.port or 80), body)) for body in bodies]
        await asyncio.sleep(1)  # all are connected
        seconds = []
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for number in range(_BROWSES):
                began = time.monotonic()
                (await client.get(("/", "/image_batches", "/limits")[number % 3])).raise_for_status()
                seconds.append(time.monotonic() - began)
                await asyncio.sleep(_SLOW_S / 2 / _BROWSES)
        assert not any(task.done() for task in uploads), "they were to be slow"
        return list(await asyncio.gather(*uploads)), seconds

    statuses, seconds = asyncio.run(both())
    assert statuses == [202] * _SLOW
    assert max(seconds) < _PATIENCE_S
    say(f"slowest of {len(seconds)} pages beside {_SLOW} slow uploads: {max(seconds) * 1000:.0f} ms")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(url: str) -> None:
    at = urlsplit(url)
    with socket.create_connection((str(at.hostname), int(at.port or 80)), timeout=10) as connection:
        connection.sendall(b"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 67108865\r\n\r\n[")
        answer = connection.makefile("rb")
        assert answer.readline().split()[1] == b"413"
        headers = dict(line.decode().lower().strip().split(": ", 1) for line in iter(answer.readline, b"\r\n"))
        problem = json.loads(answer.read(int(headers["content-length"])))
    assert headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["limit"], problem["value"]) == ("body_too_large", "max_body_bytes", 67108864)
    assert problem["request_id"] == headers["x-request-id"]


def test_headers_that_are_too_large_are_refused_in_words(client: httpx.Client) -> None:
    answer = client.get("/limits", headers={"X-Long": "x" * 20_000})
    assert (answer.status_code, answer.headers["content-type"], answer.json()["code"]) == (431, "application/problem+json", "headers_too_large")
    answer = client.get("/limits?" + "x" * 20_000)
    assert (answer.status_code, answer.json()["code"]) == (414, "uri_too_long")
