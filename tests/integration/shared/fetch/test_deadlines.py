"""No source holds anybody up, and none is held up by us."""

import socket
import threading
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest

from shared.errors import Busy, UpstreamTimeout
from shared.fetch.client import Fetcher
from shared.settings import Fetch
from tests.integration.shared.fetch.fetching import CHUNKED, HEAD, MAX, PATIENT, PERMITTED, fails, fetch, nobody
from tests.support.image_sources import (
    PERMITTED_ADDRESS,
    ConnectionHandler,
    SourceServer,
    ok_response,
    redirect_response,
)

pytestmark = pytest.mark.slow


def slowly(head: bytes, drip: bytes) -> ConnectionHandler:
    """Send a head, and then a drip again and again, each in good time."""

    def behave(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        while True:
            time.sleep(0.05)
            connection.sendall(drip)

    return behave


@pytest.mark.parametrize(
    ("head", "drip", "limit"),
    [
        (b"", b"", "first_byte_s"),
        (b"HTTP/1.1 200 ", b"x", "first_byte_s"),
        (HEAD + b"X: ", b"x", "first_byte_s"),
        (HEAD, b"X: y\r\n", "first_byte_s"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "first_byte_s"),
        (HEAD + b"\r\n", b"x", "whole_s"),
        (ok_response(Content_Length="1000"), b"x", "whole_s"),
        (CHUNKED, b"1\r\nx\r\n", "whole_s"),
        (CHUNKED + b"1;", b"x", "whole_s"),
    ],
    ids=["nothing", "a status", "a header", "headers", "interim answers", "until closed", "a body", "chunks", "a border"],
)
def test_no_drip_outlasts_the_time_limit(head: bytes, drip: bytes, limit: str) -> None:
    began = time.monotonic()
    assert isinstance(fails(slowly(head, drip), **{limit: 1.0}), UpstreamTimeout)
    assert 1.0 <= time.monotonic() - began < PATIENT["first_byte_s"]


def test_redirects_do_not_wind_the_clock_up() -> None:
    def behave(connection: socket.socket, _: str) -> None:
        time.sleep(0.4)
        connection.sendall(redirect_response("/"))

    assert isinstance(fails(behave, whole_s=1.0, max_redirects=10), UpstreamTimeout)


@pytest.mark.parametrize("head", [b"", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"], ids=["nothing", "the beginning of a handshake"])
def test_tls_that_never_comes_about_is_bounded_by_the_time_for_connecting(head: bytes) -> None:
    def drip() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(head)
            while head or connection.recv(65536):
                time.sleep(0.05)
                connection.sendall(head[-1:])

    began = time.monotonic()
    with socket.create_server((PERMITTED_ADDRESS, 0)) as server:
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(UpstreamTimeout):
            fetch(f"https://{PERMITTED_ADDRESS}:{server.getsockname()[1]}/", connect_s=1.0)
    assert 1.0 <= time.monotonic() - began < PATIENT["first_byte_s"]
    thread.join(60)
    assert not thread.is_alive(), "the connection is still open"


# How much at once


def test_so_many_at_once_from_one_source_and_in_all() -> None:
    go = threading.Event()

    def behave(connection: socket.socket, _: str) -> None:
        go.wait(60)
        connection.sendall(ok_response())

    rules = Fetch(permitted_hosts=("a.example", "b.example"), max_at_once=3, max_per_source=2, **PERMITTED)
    moved: set[str] = set()
    got = Fetcher(rules, lambda name: [ip_address("127.0.0.10" if name in moved else PERMITTED_ADDRESS)])
    with SourceServer(behave) as source, SourceServer(behave, "127.0.0.10") as other:
        done: list[bytes] = []

        def start(by: Fetcher, url: str) -> threading.Thread:
            thread = threading.Thread(target=lambda: done.append(by.fetch(url, max_bytes=MAX).data))
            thread.start()
            return thread

        started = [start(got, f"http://a.example:{source.port}/") for _ in range(2)]
        source.wait_for(2)
        one_address = [f"http://b.example:{source.port}/", source.url]
        for url in (f"http://a.example:{source.port}/", *one_address, f"http://a.example:{other.port}/"):
            if url.endswith(f":{other.port}/"):
                moved.add("a.example")  # one host, with another address now
            with pytest.raises(Busy) as busy:
                got.fetch(url, max_bytes=MAX)
            assert (busy.value.code, busy.value.status, bool(busy.value.retry_after)) == ("too_many_requests", 429, True)
        assert other.connections == 0
        elsewhere = Fetcher(Fetch(permitted_networks=(PERMITTED_ADDRESS, "127.0.0.10"), max_at_once=1, **PATIENT), nobody)
        started.append(start(elsewhere, other.url))
        other.wait_for(1)
        with pytest.raises(Busy):
            elsewhere.fetch(source.url, max_bytes=MAX)
        go.set()
        for thread in started:
            thread.join(60)
        assert done == [b"picture"] * 3
        assert got.fetch(source.url, max_bytes=MAX).data == b"picture"
        assert elsewhere.fetch(source.url, max_bytes=MAX).data == b"picture"
