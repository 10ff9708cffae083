"""A slow source is bounded by time limits; the number of concurrent fetches is bounded in total and for each source."""

import socket
import threading
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest

from shared.errors import Busy, UpstreamTimeout
from shared.fetch.client import Fetcher
from shared.settings import Fetch
from tests.integration.shared.fetch.fetching import (
    CHUNKED,
    HEAD,
    MAX,
    PATIENT,
    PERMITTED,
    fetch,
    fetch_error,
    resolve_nothing,
)
from tests.support.image_sources import (
    PERMITTED_ADDRESS,
    ConnectionHandler,
    SourceServer,
    ok_response,
    redirect_response,
)

pytestmark = pytest.mark.slow


def slowly(head: bytes, drip: bytes) -> ConnectionHandler:
    """Send a head, and then the same few bytes every 50 ms."""

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
    ids=[
        "nothing",
        "a status",
        "a header",
        "headers",
        "interim responses",
        "until closed",
        "a body",
        "chunks",
        "a chunk extension",
    ],
)
def test_a_slow_stream_of_bytes_does_not_outlast_the_time_limit(head: bytes, drip: bytes, limit: str) -> None:
    started_at = time.monotonic()
    assert isinstance(fetch_error(slowly(head, drip), **{limit: 1.0}), UpstreamTimeout)
    assert 1.0 <= time.monotonic() - started_at < PATIENT["first_byte_s"]


def test_redirects_do_not_extend_the_deadline() -> None:
    def behave(connection: socket.socket, _: str) -> None:
        time.sleep(0.4)
        connection.sendall(redirect_response("/"))

    assert isinstance(fetch_error(behave, whole_s=1.0, max_redirects=10), UpstreamTimeout)


@pytest.mark.parametrize(
    "head", [b"", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"], ids=["nothing", "the start of a handshake"]
)
def test_an_unfinished_tls_handshake_is_bounded_by_the_connect_limit(head: bytes) -> None:
    def stall_handshake() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(head)
            while head or connection.recv(65536):
                time.sleep(0.05)
                connection.sendall(head[-1:])

    started_at = time.monotonic()
    with socket.create_server((PERMITTED_ADDRESS, 0)) as server:
        thread = threading.Thread(target=stall_handshake, daemon=True)
        thread.start()
        with pytest.raises(UpstreamTimeout):
            fetch(f"https://{PERMITTED_ADDRESS}:{server.getsockname()[1]}/", connect_s=1.0)
    assert 1.0 <= time.monotonic() - started_at < PATIENT["first_byte_s"]
    thread.join(60)
    assert not thread.is_alive(), "the connection is still open"


# Concurrency


def test_concurrent_fetches_are_limited_in_total_and_for_each_source() -> None:
    release = threading.Event()

    def behave(connection: socket.socket, _: str) -> None:
        release.wait(60)
        connection.sendall(ok_response())

    rules = Fetch(permitted_hosts=("a.example", "b.example"), max_at_once=3, max_per_source=2, **PERMITTED)
    moved: set[str] = set()
    limited = Fetcher(rules, lambda name: [ip_address("127.0.0.10" if name in moved else PERMITTED_ADDRESS)])
    with SourceServer(behave) as source, SourceServer(behave, "127.0.0.10") as other:
        contents: list[bytes] = []

        def start(fetcher: Fetcher, url: str) -> threading.Thread:
            thread = threading.Thread(target=lambda: contents.append(fetcher.fetch(url, max_bytes=MAX).data))
            thread.start()
            return thread

        threads = [start(limited, f"http://a.example:{source.port}/") for _ in range(2)]
        source.wait_for(2)
        same_address = [f"http://b.example:{source.port}/", source.url]
        for url in (f"http://a.example:{source.port}/", *same_address, f"http://a.example:{other.port}/"):
            if url.endswith(f":{other.port}/"):
                moved.add("a.example")  # the same host, now with another address
            with pytest.raises(Busy) as busy:
                limited.fetch(url, max_bytes=MAX)
            assert (busy.value.code, busy.value.status, bool(busy.value.retry_after)) == (
                "too_many_requests",
                429,
                True,
            )
        assert other.connections == 0
        other_limited = Fetcher(
            Fetch(permitted_networks=(PERMITTED_ADDRESS, "127.0.0.10"), max_at_once=1, **PATIENT), resolve_nothing
        )
        threads.append(start(other_limited, other.url))
        other.wait_for(1)
        with pytest.raises(Busy):
            other_limited.fetch(source.url, max_bytes=MAX)
        release.set()
        for thread in threads:
            thread.join(60)
        assert contents == [b"picture"] * 3
        assert limited.fetch(source.url, max_bytes=MAX).data == b"picture"
        assert other_limited.fetch(source.url, max_bytes=MAX).data == b"picture"
