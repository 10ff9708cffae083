"""Content is accepted within its limits, and a malformed response is refused."""

import gzip
import socket
import tracemalloc
import zlib

import pytest

from shared.errors import ShelfsightError, SourceTooLarge, UpstreamError
from tests.integration.shared.fetch.fetching import CHUNKED, HEAD, MAX, fetch, fetch_error, fetcher
from tests.support.image_sources import ConnectionHandler, SourceServer, ok_response, respond_with

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [0, 1, MAX])
def test_content_of_exactly_the_limit_is_accepted(size: int) -> None:
    for response in (
        ok_response(b"x" * size),
        b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * size,
        ok_response(gzip.compress(b"x" * size), Content_Encoding="gzip"),
    ):
        with SourceServer(respond_with(response)) as source:
            assert fetch(source.url).data == b"x" * size


def test_a_declared_size_above_the_limit_is_refused_before_the_content() -> None:
    def behave(connection: socket.socket, _: str) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {MAX + 1}\r\n\r\n".encode())
        connection.recv(1)  # the content never follows: a fetch that waits for it runs into a timeout

    error = fetch_error(behave)
    assert isinstance(error, SourceTooLarge)
    assert error.extra == {"limit": "max_source_bytes", "value": MAX}


def endless(head: bytes, part: bytes) -> ConnectionHandler:
    """Send a head, then the same part repeatedly until the connection is closed."""

    def behave(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return behave


_raw = zlib.compressobj(wbits=-15)
ZEROS = _raw.compress(b"\x00" * 1_000_000) + _raw.flush(zlib.Z_FULL_FLUSH)
"""A part of a gzip stream that can be repeated any number of times."""
ENDLESS = {
    "until closed": (HEAD + b"\r\n", b"x" * 10_000, "source_too_large"),
    "chunked": (CHUNKED, b"2710\r\n" + b"x" * 10_000 + b"\r\n", "source_too_large"),
    "a small size beside chunks": (
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n" * 1000,
        "upstream_error",
    ),
    "one chunk": (CHUNKED + b"FFFFFFFFFF\r\n", b"x" * 10_000, "source_too_large"),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 1000, "upstream_error"),
    "chunk extensions": (CHUNKED, b"1;" + b"e" * 1000 + b"\r\nx\r\n", "upstream_error"),
    "a trailer": (CHUNKED + b"0\r\n", b"X: y\r\n" * 1000, "upstream_error"),
    "gzip": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], ZEROS, "source_too_large"),
    "a header": (HEAD + b"X: ", b"x" * 10_000, "upstream_error"),
    "headers": (HEAD, b"X: y\r\n" * 1000, "upstream_error"),
    "a status": (b"HTTP/1.1 200 ", b"x" * 10_000, "upstream_error"),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 100, "upstream_error"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_an_endless_response_is_aborted(case: str) -> None:
    head, part, code = ENDLESS[case]
    with SourceServer(endless(head, part)) as source, pytest.raises(ShelfsightError) as failed:
        fetch(source.url)
    assert failed.value.code == code
    assert source.finished.wait(60), "the connection is still open"


@pytest.mark.parametrize("case", ["a header", "headers", "interim responses", "chunk extensions", "chunks of a byte"])
def test_headers_and_chunk_framing_have_a_limit_of_their_own(case: str) -> None:
    head, part, _ = ENDLESS[case]
    with SourceServer(endless(head, part)) as source, pytest.raises(UpstreamError, match="around its content"):
        fetch(source.url)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (CHUNKED, "around its content"),
        (
            HEAD
            + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n"
            + gzip.compress(b"x")
            + b"\r\n",
            "not valid gzip",
        ),
    ],
    ids=["framing around every byte", "data after the end of gzip"],
)
def test_content_that_is_expensive_to_parse_is_aborted_long_before_its_limit(head: bytes, sentence: str) -> None:
    with SourceServer(endless(head, b"1\r\nx\r\n" * 10_000)) as source, pytest.raises(UpstreamError, match=sentence):
        fetcher().fetch(source.url, max_bytes=100_000_000)  # parsing as much would take minutes


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_content_in_many_chunks_is_complete(size: int) -> None:
    def behave(connection: socket.socket, _: str) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(CHUNKED)
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    data = bytes(range(256)) * (390 if size > 1 else 10)
    with SourceServer(behave) as source:
        assert fetch(source.url).data == data


def test_a_decompression_bomb_is_aborted_within_the_memory_limit() -> None:
    bomb = zlib.compressobj(wbits=31)
    packed = bomb.compress(b"\x00" * 50_000_000) + bomb.flush()
    assert len(packed) < MAX
    with SourceServer(respond_with(ok_response(packed, Content_Encoding="gzip"))) as source:
        bounded = fetcher()
        tracemalloc.start()
        try:
            with pytest.raises(SourceTooLarge):
                bounded.fetch(source.url, max_bytes=MAX)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 20 * MAX
    assert fetch_error(ok_response(gzip.compress(packed), Content_Encoding="gzip, gzip")).code == "upstream_error"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"picture", "gzip"),
        (gzip.compress(b"picture")[:-4], "gzip"),
        (gzip.compress(b"picture") + b"more", "gzip"),
        (gzip.compress(b"picture")[:-8] + b"\x00" * 8, "x-gzip"),
        (zlib.compress(b"picture"), "deflate"),
        (b"\x0b\x03\x80picture\x03", "br"),
        (b"picture", "zstd"),
        (b"picture", "identity, br"),
        (b"picture", "compress"),
        (b"picture", "utf-8, BR"),
        (gzip.compress(b"picture"), "gzip, deflate"),
    ],
    ids=range(11),
)
def test_content_with_an_unsupported_or_invalid_encoding_is_refused(data: bytes, encoding: str) -> None:
    error = fetch_error(ok_response(data, Content_Encoding=encoding))
    assert (type(error), error.code) == (UpstreamError, "upstream_error")


def test_the_error_for_an_unsupported_encoding_names_it() -> None:
    assert "(br)" in fetch_error(ok_response(b"picture", Content_Encoding="UTF-8, br")).detail


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        *(
            (token, False)
            for token in ("UTF-8", "aws-chunked", "none", "binary", "", ",", "identity", "utf-8, Identity")
        ),
        *((token, False) for token in ("8bit", "image/jpeg", "null", '"gzip"', "b\xfcro", "gzip-9")),
        *((token, True) for token in ("GZIP", "utf-8, gzip", "gzip, identity", "aws-chunked,x-gzip", "gzip;q=1.0")),
    ],
)
def test_a_token_that_is_no_encoding_is_ignored(encoding: str, packed: bool) -> None:  # noqa: FBT001 -- parametrised
    content = gzip.compress(b"picture") if packed else b"picture"
    response = HEAD + b"Content-Encoding: " + encoding.encode("latin-1") + b"\r\n\r\n" + content
    with SourceServer(respond_with(response)) as source:
        assert fetch(source.url).data == b"picture"


def test_a_body_ends_at_its_content_length() -> None:
    with SourceServer(respond_with(ok_response(b"picture and more", Content_Length="7"))) as source:
        assert fetch(source.url).data == b"picture"


@pytest.mark.parametrize(
    "response",
    [
        ok_response(b"pict", Content_Length="7"),
        HEAD + b"Content-Length: 7\r\nContent-Length: 8\r\n\r\npicture!",
        *(
            HEAD + f"Content-Length: {length}\r\n\r\npicture".encode()
            for length in ("-1", "-0", "+7", "0x7", "0_7", "1e1", "7 7", "7, 8", "", "\u0667")
        ),
        HEAD + b"Content-Length : 7\r\n\r\npicture",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        CHUNKED + b"7\r\npict",
        CHUNKED + b"7\r\npicture\r\n",
        CHUNKED + b"7\r\npicture..0\r\n\r\n",
        CHUNKED + b"7\r\npicture\r\n0\r\nNo colon\r\n\r\n",
        *(CHUNKED + size + b"\r\npicture\r\n0\r\n\r\n" for size in (b"zz", b"-7", b"+7", b" 7", b"0x7", b"0_7", b"")),
        CHUNKED + b"7\npicture\n0\n\n",
        CHUNKED + b"F" * 30 + b"\r\npicture",
        *(
            HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n7\r\npicture\r\n0\r\n\r\n"
            for coding in (b"gzip", b"identity", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"\x0bchunked")
        ),
        HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n7\r\npicture\r\n0\r\n\r\n",
        HEAD + b"No colon\r\n\r\npicture",
        HEAD + b" X: folded\r\n\r\npicture",
        HEAD + b"X: a\rContent-Length: 3\r\n\r\npicture",
        HEAD + b"X: \x00\r\n\r\npicture",
        *(
            b"HTTP/1.1 " + status + b" OK\r\n\r\npicture"
            for status in (b"abc", b"000", b"099", b"1000", b"2e2", b"-200")
        ),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\npicture",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 7\r\n\r\npicture" + ok_response(),
        b"ICY 200 OK\r\n\r\npicture",
        b"http/1.1 200 OK\r\n\r\npicture",
        b"\r\n" + ok_response(),
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18,
        b"picture",
        b"\x16\x03\x01\x02\x00",
        b"",
    ],
    ids=lambda response: ascii(response)[-50:],
)
def test_a_malformed_response_is_an_upstream_error(response: bytes) -> None:
    error = fetch_error(response)
    assert (type(error), error.code) == (UpstreamError, "upstream_error")
