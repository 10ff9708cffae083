"""nginx in front of a web process: slow clients hold the places for buffered bodies, and nobody else is refused for it."""

import http.client
import json
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from scripts.local.servers.ports import free_port
from shared import settings
from shared.storage.mongo import Db
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.nginx_front import NGINX, TRUSTS_NGINX, Nginx, run_nginx
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]

THREADS = 4
REPLICAS = {"WEB_REPLICAS": "1", "WEB_WORKERS": "1", "WEB_THREADS": str(THREADS)}
SIZES = {"large": (60_000_000, 2), "medium": (9_000_000, 6), "small": (900_000, 66)}
"""For each size of a body, a length and the number of places if the buffer has 256 MB."""
MAX_UNBUFFERED = 2 * THREADS
Send = Callable[[str, int], socket.socket]


@pytest.fixture
def front(mongo: settings.Mongo, db: Db, tmp_path: Path) -> Iterator[WebFront]:
    with run_web_front(mongo, tmp_path, WEB_THREADS=str(THREADS), **TRUSTS_NGINX) as front:
        yield front


@pytest.fixture
def port(front: WebFront) -> Iterator[int]:
    with run_nginx(front.port, UPLOAD_BUFFER="256m", **REPLICAS) as nginx:
        yield nginx.port


@pytest.fixture
def stall(port: int) -> Iterator[Send]:
    """Return a function that begins to send a body of a length, and does not go on."""
    with ExitStack() as stack:
        yield lambda path, length: begin(stack, port, path, length, b"[")


def begin(stack: ExitStack, port: int, path: str, length: int, start: bytes) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    client.sendall(head.encode() + start)
    return client


def post(port: int, length: int, path: str = "/upload_image_batch", **headers: str) -> tuple[int, http.client.HTTPMessage, dict[str, object]]:
    body = json.dumps([image_payload()]).encode()
    body += b" " * (length - len(body))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())


def read_problems(clients: list[socket.socket]) -> Counter[tuple[int, object]]:
    """Wait until some clients have an answer, and return the number of each status and code."""
    answers: Counter[tuple[int, object]] = Counter()
    answered, _, _ = select.select(clients, [], [], 10)
    for client in answered:
        with http.client.HTTPResponse(client) as response:
            response.begin()
            problem = json.loads(response.read())
        answers[response.status, problem["code"]] += 1
        assert problem["instance"] == "/upload_image_batch"
        assert int(response.headers["Retry-After"]) > 0
    return answers


def wait_for_client(front: WebFront, request_id: str, client: str) -> None:
    """Wait until the web process logs the address of the client of a request."""
    wait_until(lambda: (request_id, client) in {(line["request_id"], line["client"]) for line in front.log_lines("shelfsight.access")}, 10, "the request is logged")


def wait_for_files(nginx: Nginx, number: int) -> None:
    """Wait until nginx buffers so many bodies in files."""
    wait_until(lambda: len(nginx.buffered_bytes()) == number, 10, "nginx buffers the bodies")


@pytest.mark.parametrize("path", ["/upload_image_batch", "/images", "/img"])
def test_slow_clients_in_all_places_refuse_no_other_upload(port: int, front: WebFront, stall: Send, path: str) -> None:
    for size in ("medium", "small"):
        length, places = SIZES[size]
        for _ in range(places):
            stall(path, length)
        status, headers, _ = post(port, length)
        assert status == 202
        wait_for_client(front, headers["X-Request-ID"], "127.0.0.1")


def test_slow_clients_in_all_places_for_large_bodies_refuse_no_other_upload(port: int, stall: Send) -> None:
    length, places = SIZES["large"]
    for _ in range(places + MAX_UNBUFFERED):  # also those that are not buffered, in all threads of the web process
        stall("/upload_image_batch", length)
    wait_until(lambda: post(port, length)[0] == 202, 20, "a slow body has been ended")
    assert post(port, 1000)[0] == 202


def test_a_body_that_is_not_buffered_and_stalls_is_told_so_when_another_needs_the_thread(port: int, stall: Send) -> None:
    length, places = SIZES["medium"]
    clients = [stall("/upload_image_batch", length) for _ in range(places + 2 * THREADS)]
    assert read_problems(clients).keys() == {(408, "body_too_slow")}


def test_the_bodies_that_are_not_buffered_are_limited_in_number(port: int, stall: Send) -> None:
    length, places = SIZES["medium"]
    clients = [stall("/upload_image_batch", length) for _ in range(places + MAX_UNBUFFERED + 8 * THREADS)]
    answers = read_problems(clients)
    assert answers[429, "too_many_requests"] > 0
    assert answers.keys() <= {(429, "too_many_requests"), (408, "body_too_slow")}


def test_a_request_without_a_body_takes_no_place(port: int, stall: Send) -> None:
    for _ in range(SIZES["large"][1]):
        stall("/upload_image_batch", SIZES["large"][0])
    status, _, problem = post(port, 0, "/img")
    assert (status, problem["code"]) != (429, "too_many_requests")


def test_a_client_whose_address_is_known_leaves_places_to_others(front: WebFront) -> None:
    length, places = SIZES["medium"]
    with run_nginx(front.port, UPLOAD_BUFFER="256m", TRUSTED_PROXY="127.0.0.1") as nginx, ExitStack() as stack:
        for _ in range(places):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", nginx.port), timeout=60))
            client.sendall(f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: {length}\r\n\r\n[".encode())
        status, headers, _ = post(nginx.port, length, **{"X-Forwarded-For": "192.0.2.2"})
        assert status == 202
        wait_for_client(front, headers["X-Request-ID"], "192.0.2.2")


def test_a_request_without_a_host_is_refused() -> None:
    with run_nginx(free_port()) as nginx:
        for head in ("GET /limits HTTP/1.0", "GET /limits HTTP/1.1\r\nHost:", "POST /upload_image_batch HTTP/1.0"):
            with socket.create_connection(("127.0.0.1", nginx.port), timeout=30) as client:
                client.sendall(f"{head}\r\n\r\n".encode())
                with http.client.HTTPResponse(client) as response:
                    response.begin()
                    assert (response.status, json.loads(response.read())["code"]) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/upload_image_batch", "/images", "/img"])
def test_bodies_of_no_size_fill_the_buffer(front: WebFront, path: str) -> None:
    limits = {"LIMITS_MAX_BODY_BYTES": "2000000", "INSPECT_MAX_SOURCE_BYTES": "1000000", "UPLOAD_BUFFER": "17m"}
    for length, buffered in [(999_999, 2), (1_999_999, 1), (100_000, 2), (60_000, 0)]:
        with run_nginx(front.port, **limits) as nginx, ExitStack() as stack:
            for _ in range(6):
                begin(stack, nginx.port, path, length, bytes(length - 1))
            if buffered:
                wait_for_files(nginx, buffered)
            assert sum(nginx.buffered_bytes()) < 17 * 2**20
            assert post(nginx.port, length)[0] == 202
            assert len(nginx.buffered_bytes()) == buffered


def test_a_buffer_that_is_too_small_is_refused(front: WebFront) -> None:
    with pytest.raises(AssertionError, match="Set at least UPLOAD_BUFFER=76m"), run_nginx(front.port, UPLOAD_BUFFER="64m"):
        pass
