"""Clients that occupy request threads delay other clients only for a moment, and get a clear response where possible."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from shared import settings
from shared.ledger import commits
from shared.storage.mongo import Db
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.ledger import new_batch
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload

pytestmark = pytest.mark.slow

THREADS = 4
SLOW_CLIENTS = 3 * THREADS
LARGE_BODY_BYTES = 60 * 2**20
PROMPT_S = 20
"""Far less than the 30 s for which a stalled body is tolerated while threads are free."""


@pytest.fixture
def front(mongo: settings.Mongo, db: Db, tmp_path: Path) -> Iterator[WebFront]:
    with run_web_front(mongo, tmp_path, WEB_THREADS=str(THREADS)) as front:
        yield front


def connect(stack: ExitStack, front: WebFront, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", front.port))
    return stack.enter_context(sock)


def stall_before_the_head(stack: ExitStack, front: WebFront) -> None:
    connect(stack, front)


def stall_in_the_head(stack: ExitStack, front: WebFront) -> None:
    connect(stack, front).sendall(b"GET /healthz HTTP/1.1\r\nHost: local")


def stall_in_the_body(stack: ExitStack, front: WebFront) -> None:
    connect(stack, front).sendall(head("Content-Length: 1000") + b"[")


def stall_in_a_chunk(stack: ExitStack, front: WebFront) -> None:
    connect(stack, front).sendall(head("Transfer-Encoding: chunked") + b"400\r\n[")


def stall_in_the_response(stack: ExitStack, front: WebFront) -> None:
    request = f"GET /image_batches?per_page=100&images_per_batch=1000 HTTP/1.1\r\nHost: localhost:{front.port}\r\n\r\n"
    connect(stack, front, receive_buffer=4096).sendall(request.encode())


def upload(front: WebFront) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PROMPT_S)
    with closing(connection):
        connection.request("POST", "/upload_image_batch", json.dumps([image_payload()]), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
    return response


def head(framing: str) -> bytes:
    return f"POST /upload_image_batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode()


@pytest.mark.parametrize(
    "stall", [stall_before_the_head, stall_in_the_head, stall_in_the_body, stall_in_a_chunk, stall_in_the_response]
)
def test_stalling_clients_in_all_threads_do_not_keep_an_upload_waiting(
    front: WebFront, db: Db, stall: Callable[[ExitStack, WebFront], None]
) -> None:
    assert upload(front).status == 202
    if stall is stall_in_the_response:
        for _ in range(12):  # more bytes than the buffers of a socket hold
            commits.commit_batch(db, new_batch(1000))
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            stall(stack, front)
        assert upload(front).status == 202


def test_a_client_that_loses_its_thread_is_told_when_to_retry(front: WebFront) -> None:
    with ExitStack() as stack:
        clients = [connect(stack, front) for _ in range(2 * THREADS)]
        for client in clients:
            client.sendall(head("Content-Length: 1000") + b"[")
        response = http.client.HTTPResponse(clients[0])
        response.begin()
        problem = json.loads(response.read())
    assert (response.status, problem["code"]) == (408, "body_too_slow")
    assert int(response.headers["Retry-After"]) > 0


def test_slow_bodies_do_not_hold_the_memory_that_others_need(mongo: settings.Mongo, db: Db, tmp_path: Path) -> None:
    with run_web_front(mongo, tmp_path, LIMITS_MAX_BYTES_IN_FLIGHT=str(2 * LARGE_BODY_BYTES)) as front, ExitStack() as stack:
        for _ in range(2):
            connect(stack, front).sendall(head(f"Content-Length: {LARGE_BODY_BYTES}") + b"[")
        wait_until(lambda: upload(front).status == 202, PROMPT_S, "a slow body has been ended")


@contextmanager
def steady_uploads(front: WebFront, number: int, *, are_read: bool) -> Iterator[None]:
    """Send the bodies of uploads from one client address, each with at most 400 KB/s.

    :param are_read: whether to wait until the service reads all of them.
    """
    stop = threading.Event()

    def send_on(clients: list[socket.socket]) -> None:
        while not stop.wait(0.1):
            for client in list(clients):
                try:
                    client.sendall(bytes(40_000))
                except OSError:  # the service has ended it
                    clients.remove(client)

    with ExitStack() as stack:
        clients = [connect(stack, front) for _ in range(number)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            client.sendall(head(f"X-Forwarded-For: 192.0.2.1\r\nContent-Length: {LARGE_BODY_BYTES}"))
            if are_read:
                client.sendall(bytes(1_000_000))  # more than the buffers hold
        sender = threading.Thread(target=send_on, args=(clients,))
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()


def test_steady_uploads_of_one_client_do_not_keep_another_waiting_for_a_thread(mongo: settings.Mongo, db: Db, tmp_path: Path) -> None:
    variables = {"WEB_THREADS": str(THREADS), "WEB_TRUSTED_PROXIES": '["127.0.0.1/32"]'}
    with run_web_front(mongo, tmp_path, **variables) as front, steady_uploads(front, SLOW_CLIENTS, are_read=False):
        assert upload(front).status == 202


def test_steady_uploads_of_one_client_do_not_hold_the_memory_that_another_needs(mongo: settings.Mongo, db: Db, tmp_path: Path) -> None:
    variables = {"LIMITS_MAX_BYTES_IN_FLIGHT": str(2 * LARGE_BODY_BYTES), "WEB_TRUSTED_PROXIES": '["127.0.0.1/32"]'}
    with run_web_front(mongo, tmp_path, **variables) as front, steady_uploads(front, 2, are_read=True):
        assert upload(front).status == 429
        wait_until(lambda: upload(front).status == 202, PROMPT_S, "a steady body has been ended")


def test_a_head_that_does_not_end_is_given_up_even_if_threads_are_free(front: WebFront) -> None:
    with ExitStack() as stack:
        client = connect(stack, front)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
        assert client.recv(1000) == b""  # the server closes the connection


def test_a_steady_client_is_served_while_the_threads_are_occupied_by_stalling_ones(front: WebFront) -> None:
    body = json.dumps([image_payload()]).encode()
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            stall_in_the_body(stack, front)
        client = connect(stack, front)
        client.sendall(head(f"Content-Length: {len(body) + 3_000_000}"))
        for _ in range(30):
            client.sendall(b" " * 100_000)
        client.sendall(body)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 202, response.read()
