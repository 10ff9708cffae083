"""Bodies as gunicorn passes them on: a pair of sockets in this process, with gunicorn's parser at one end."""

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from shared.errors import BadRequest, SlowBody
from web.http.body_stream import BodyStream, open_body

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def request(body: bytes, *, length: int | None = None) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body) if length is None else length,
        body,
    )


def send(sock: socket.socket, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=sock.sendall, args=(data,))
    thread.start()
    return thread


def read_all(stream: BodyStream) -> bytes:
    return b"".join(iter(lambda: stream.read(1_000_000), b""))


def environ(parser: RequestParser, sock: socket.socket) -> dict[str, Any]:
    return {"wsgi.input": next(parser).body, "gunicorn.socket": sock}


@pytest.mark.parametrize("size", [0, 1, 5000, 8192, 100_000, 3_000_000])
def test_a_body_is_read_whole_and_the_next_request_follows_it(pair: Pair, size: int) -> None:
    body = random.Random(size).randbytes(size)
    sender = send(pair[0], request(body) + request(b"next"))
    parser = RequestParser(Config(), pair[1], ("", 0))
    with open_body(environ(parser, pair[1]), 60) as stream:
        assert stream.read(size + 10) == body
        assert stream.read(10) == b""
    with open_body(environ(parser, pair[1]), 60) as stream:
        assert stream.read(100) == b"next"
    sender.join()


def test_a_body_may_be_read_in_steps(pair: Pair) -> None:
    body = random.Random(1).randbytes(700_001)
    sender = send(pair[0], request(body))
    with open_body(environ(RequestParser(Config(), pair[1], ("", 0)), pair[1]), 60) as stream:
        parts = list(iter(lambda: stream.read(99_999), b""))
    sender.join()
    assert b"".join(parts) == body
    assert {len(part) for part in parts[:-1]} == {99_999}


@pytest.mark.parametrize("size", [0, 1, 5000, 100_000, 3_000_000])
@pytest.mark.parametrize("peeked", [0, 1, 8192, 262_144])
def test_peeked_bytes_are_read_again(pair: Pair, size: int, peeked: int) -> None:
    body = random.Random(size).randbytes(size)
    sender = send(pair[0], request(body) + request(b"next"))
    parser = RequestParser(Config(), pair[1], ("", 0))
    with open_body(environ(parser, pair[1]), 60) as stream:
        assert stream.peek(peeked) == body[:peeked]
        assert stream.peek(peeked) == body[:peeked]
        assert stream.read(size + 10) == body
        assert stream.peek(10) == b""
    with open_body(environ(parser, pair[1]), 60) as stream:
        assert stream.read(100) == b"next"
    sender.join()


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked", b"Content-Length: 4"])
def test_a_stream_that_takes_no_bytes_back_is_not_read_by_a_peek(pair: Pair, head: bytes) -> None:
    send(pair[0], b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + (b"4\r\nwell\r\n0\r\n\r\n" if b"chunked" in head else b"well")).join()
    received = environ(RequestParser(Config(), pair[1], ("", 0)), pair[1])
    if b"chunked" not in head:
        received["gunicorn.socket"] = None  # as with another server
    with open_body(received, 60) as stream:
        assert stream.peek(4) == b""
        assert read_all(stream) == b"well"


def test_a_chunked_body_is_read_by_gunicorns_reader(pair: Pair) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sender = send(pair[0], head + b"4\r\nwell\r\n5\r\n done\r\n0\r\n\r\n" + request(b"next"))
    parser = RequestParser(Config(), pair[1], ("", 0))
    with open_body(environ(parser, pair[1]), 60) as stream:
        assert read_all(stream) == b"well done"
    with open_body(environ(parser, pair[1]), 60) as stream:
        assert stream.read(100) == b"next"
    sender.join()


def test_a_body_that_ends_early_is_returned_short(pair: Pair) -> None:
    send(pair[0], request(b"half", length=1000)).join()
    parser = RequestParser(Config(), pair[1], ("", 0))
    with open_body(environ(parser, pair[1]), 60) as stream:
        pair[0].shutdown(socket.SHUT_WR)
        assert stream.read(1000) == b"half"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stalling_client_is_refused(pair: Pair, *, chunked: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhal"
    send(pair[0], head if chunked else request(b"hal", length=1000)).join()
    wsgi_environ = environ(RequestParser(Config(), pair[1], ("", 0)), pair[1])
    started_at = time.monotonic()
    with open_body(wsgi_environ, 1) as stream:
        if chunked:
            assert stream.read(1000) == b"hal"
        with pytest.raises(SlowBody):
            stream.read(1000)
    assert time.monotonic() - started_at < 30
    assert wsgi_environ["wsgi.input"].failed  # gunicorn then closes the connection


@pytest.mark.parametrize(
    "broken", [b"zz\r\n", b"4\r\nwell", b"4\r\nwellXX", b"4\r\nwell\r\n0\r\nbad trailer\r\n\r\n", b"-1\r\n"]
)
def test_malformed_chunks_are_a_bad_request(pair: Pair, broken: bytes) -> None:
    send(pair[0], b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + broken).join()
    pair[0].shutdown(socket.SHUT_WR)
    wsgi_environ = environ(RequestParser(Config(), pair[1], ("", 0)), pair[1])
    with open_body(wsgi_environ, 60) as stream, pytest.raises(BadRequest) as caught:
        read_all(stream)
    assert caught.value.code in {"malformed_chunks", "incomplete_body"}
    assert wsgi_environ["wsgi.input"].failed


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_slowly_is_refused(pair: Pair, *, chunked: bool) -> None:
    if chunked:
        send(pair[0], b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n").join()
        wsgi_environ = environ(RequestParser(Config(), pair[1], ("", 0)), pair[1])
    else:
        wsgi_environ = send_head(pair, 1_000_000)
    stop = threading.Event()

    def send_bytes() -> None:
        while not stop.wait(0.1):
            pair[0].send(b".")

    sender = threading.Thread(target=send_bytes)
    sender.start()
    try:
        with open_body(wsgi_environ, 1) as stream, pytest.raises(SlowBody):
            read_all(stream)
    finally:
        stop.set()
        sender.join()


@pytest.mark.parametrize("start", [b"", b"4\r\nwell\r\n0\r\n"], ids=["in a chunk's size", "in a trailer"])
@pytest.mark.parametrize("drained", [False, True])
def test_a_client_that_sends_too_slowly_between_chunks_is_refused(pair: Pair, start: bytes, *, drained: bool) -> None:
    send(pair[0], b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + start).join()
    wsgi_environ = environ(RequestParser(Config(), pair[1], ("", 0)), pair[1])
    stop = threading.Event()

    def send_bytes() -> None:
        while not stop.wait(0.1):
            pair[0].send(b"0")

    sender = threading.Thread(target=send_bytes)
    sender.start()
    started_at = time.monotonic()
    try:
        with open_body(wsgi_environ, 1) as stream:
            if drained:
                stream.drain()
            else:
                with pytest.raises(SlowBody):
                    read_all(stream)
    finally:
        stop.set()
        sender.join()
    assert time.monotonic() - started_at < 30


def test_a_slow_body_above_the_minimum_rate_is_read_to_its_end(pair: Pair) -> None:
    wsgi_environ = send_head(pair, 400_000)

    def send_slowly() -> None:
        for _ in range(8):
            time.sleep(0.4)  # the whole takes longer than the patience, each pause far less
            pair[0].sendall(bytes(50_000))

    sender = threading.Thread(target=send_slowly)
    sender.start()
    with open_body(wsgi_environ, 3) as stream:
        assert len(stream.read(400_000)) == 400_000
    sender.join()


def test_draining_ends_after_two_seconds(pair: Pair) -> None:
    wsgi_environ = send_head(pair, 1_000_000)
    started_at = time.monotonic()
    with open_body(wsgi_environ, 60) as stream:
        stream.drain()
    assert time.monotonic() - started_at < 30


@pytest.mark.parametrize("seconds", [1e-9, 4e-7, 0.9999999])
def test_a_very_short_time_limit_is_not_rounded_to_none(pair: Pair, seconds: float) -> None:
    stream = BodyStream(None, pair[1], 1, "192.0.2.1")
    stream._set_receive_timeout(seconds)
    timeval = pair[1].getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    whole, microseconds = struct.unpack("ll", timeval)
    assert 0 < whole + microseconds / 1e6 < 1.1
    stream.close()
    assert not any(pair[1].getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))


def test_a_broken_connection_is_a_bad_request(pair: Pair) -> None:
    wsgi_environ = send_head(pair, 1000)
    wsgi_environ["gunicorn.socket"] = Broken()
    with open_body(wsgi_environ, 60) as stream, pytest.raises(BadRequest) as caught:
        stream.read(1000)
    assert caught.value.code == "incomplete_body"


class Broken:
    """A socket whose other end was reset, which a pair of sockets in one process cannot be."""

    def setsockopt(self, *_: object) -> None:
        """Ignore it."""

    def getsockopt(self, *_: object) -> bytes:
        """Raise as a reset connection does."""
        raise ConnectionResetError

    def recv_into(self, *_: object, **__: object) -> int:
        """Raise as a reset connection does."""
        raise ConnectionResetError


def send_head(pair: Pair, length: int) -> dict[str, Any]:
    send(pair[0], request(b"", length=length)).join()
    return environ(RequestParser(Config(), pair[1], ("", 0)), pair[1])
