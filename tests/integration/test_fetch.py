"""Fetching from real servers, good ones, broken ones and hostile ones; what must not be reached would notice."""

import gzip
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    Busy,
    ShelfsightError,
    SourceTooLarge,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UrlRefused,
)
from shared.fetch.addresses import Address
from shared.fetch.client import Fetched, Fetcher
from shared.settings import Fetch
from tests.integration.sources import HERE, Behaviour, Source, ok, redirect, says
from tests.unit.fetch import attacks

pytestmark = pytest.mark.slow

MAX = 100_000
PERMITTED: dict[str, Any] = {"permitted_networks": [HERE]}


def nobody(name: str) -> list[Address]:
    """Resolve nothing."""
    raise OSError(name)


def fetcher(**rules: Any) -> Fetcher:
    return Fetcher(Fetch(**{**PERMITTED, **rules}), nobody)


def fetch(url: str, **rules: Any) -> Fetched:
    return fetcher(**rules).fetch(url, max_bytes=MAX)


def fails(behaviour: Behaviour | bytes, **rules: Any) -> ShelfsightError:
    """Give the error that a source's behaviour ends with."""
    with Source(says(behaviour) if isinstance(behaviour, bytes) else behaviour) as source:
        with pytest.raises(ShelfsightError) as failed:
            fetch(f"{source.url}/", **rules)
        source.wait_for(1)
    return failed.value


@pytest.fixture
def canary() -> Iterator[Source]:
    """Listen where nobody may come."""
    with Source(says(ok(b"canary")), "127.0.0.1") as source:
        yield source


# What is handed back


def test_a_source_is_fetched_and_asked_for_nothing_more() -> None:
    answer = ok(b"\x00picture", Content_Type="image/jpeg", ETag='W/"1"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT", Set_Cookie="a=b")
    with Source(says(answer)) as source:
        got = fetcher()
        for _ in range(2):
            fetched = got.fetch(f"{source.url}/a?b#c", max_bytes=MAX)
            assert fetched == Fetched(f"{source.url}/a?b", 200, "image/jpeg", 'W/"1"', "Thu, 01 Jan 2026 00:00:00 GMT", b"\x00picture")
    host = f"{HERE}:{source.port}"
    headers = f"Host: {host}\r\nUser-Agent: Shelfsight\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close"
    assert source.requests == [f"GET /a?b HTTP/1.1\r\n{headers}\r\n\r\n"] * 2
    assert source.connections == 2


def test_what_has_not_changed_is_not_sent_again() -> None:
    def behave(connection: socket.socket, asked: str) -> None:
        connection.sendall(b'HTTP/1.1 304 Same\r\nETag: "1"\r\n\r\n' if 'If-None-Match: "1"\r\n' in asked else ok(ETag='"1"'))

    with Source(behave) as source:
        first = fetcher().fetch(source.url, max_bytes=MAX)
        again = fetcher().fetch(source.url, max_bytes=MAX, etag=first.etag, last_modified="Thu, 01 Jan 2026 00:00:00 GMT")
        other = fetcher().fetch(source.url, max_bytes=MAX, etag='"2"')
    assert (again.not_modified, again.data, again.etag) == (True, b"", '"1"')
    assert "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n" in source.requests[1]
    assert (first.not_modified, other.not_modified, other.data) == (False, False, b"picture")


@pytest.mark.parametrize("etag", ['"1"\r\nAuthorization: Basic x', '"1"\nX: y', "", '"\x00"', '"ü"', '"' + "x" * 255])
def test_a_validator_that_is_none_is_not_sent(etag: str) -> None:
    with Source(says(ok())) as source:
        assert fetcher().fetch(source.url, max_bytes=MAX, etag=etag).data == b"picture"
    assert "If-None-Match" not in source.requests[0]
    assert "Authorization" not in source.requests[0]


def test_headers_that_are_none_are_not_handed_on() -> None:
    with Source(says(ok(Content_Type="x" * 300, ETag="\xe9"))) as source:
        assert (fetch(source.url).content_type, fetch(source.url).etag) == (None, None)


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 305, 400, 401, 403, 404, 410, 429, 500, 503])
def test_any_other_status_is_the_sources_fault(status: int) -> None:
    failed = fails(f"HTTP/1.1 {status} secret\r\nContent-Length: 6\r\n\r\nsecret".encode())
    assert isinstance(failed, UpstreamStatus)
    assert failed.extra == {"upstream_status": status}
    assert "secret" not in failed.detail


# Where nobody may come


def test_the_canary_would_notice(canary: Source) -> None:
    assert fetch(canary.url, permitted_networks=["127.0.0.1"]).data == b"canary"
    assert canary.connections == 1


def test_no_attack_reaches_what_listens_on_loopback() -> None:
    with ExitStack() as stack:
        listening = [stack.enter_context(Source(says(ok(b"canary")), "127.0.0.1")) for _ in range(2)]
        if socket.has_ipv6:
            listening.append(stack.enter_context(Source(says(ok(b"canary")), "::1")))
        got = Fetcher(Fetch(), attacks.resolver)
        tried = [url for url, _ in attacks.attacks()]
        tried += [f"{scheme}://{host}:{source.port}/" for scheme in ("http", "https") for host, _ in attacks.hosts() for source in listening]
        for url in tried:
            with pytest.raises(UrlRefused):
                got.fetch(url, max_bytes=MAX)
        assert len(tried) > 1500
        assert [source.connections for source in listening] == [0] * len(listening)


TO_NOWHERE = {
    "blocked_address": ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://2130706433:{port}/", "http://[::ffff:7f00:1]:{port}/", "http://0:{port}",
                        "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "https://127.0.0.1:{port}/",
                        "/\t/127.0.0.1:{port}/", "//\t127.0.0.1:{port}", "\thttp://127.0.0.1:{port}/", "http://127.0.0.1:{port}#@x", "http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.1:{port}/"],
    "blocked_host": ["http://localhost:{port}/", "http://metadata.google.internal/", "http://canary:{port}/"],
    "bad_url": ["file:///etc/passwd", "gopher://127.0.0.1:{port}/", "http://user@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@x/", "http://8.8.8.8:{port}/",
                "/\\127.0.0.1:{port}/", "\\\\127.0.0.1:{port}\\", "https:127.0.0.1:{port}", "javascript:1", "//:{port}", "//@", "http://127.0.0.1:{port}{port}/", "http://[::1%25lo]:{port}/",
                "/" + "a" * 8190],
    "unresolvable_host": ["http://nowhere.example/"],
    "upstream_error": ["", "http://[/", "\xff", "http://127.0.0.1:{port}/\r\nLocation: /", "//127.0.0.1\xef\xbc\xa0x/", "https://x.example\xe2\x84\x80/"],
}  # fmt: skip


@pytest.mark.parametrize(("location", "code"), [(one, code) for code, all_of_them in TO_NOWHERE.items() for one in all_of_them])
@pytest.mark.parametrize("hops", [1, 3])
def test_a_redirect_is_checked_like_the_url_itself(canary: Source, location: str, code: str, hops: int) -> None:
    def behave(connection: socket.socket, asked: str) -> None:
        hop = int(asked.split()[1].strip("/"))
        there = location.format(port=canary.port).encode("latin-1")
        connection.sendall(redirect(f"/{hop + 1}") if hop < hops else redirect("LOCATION").replace(b"LOCATION", there))

    with Source(behave) as source, pytest.raises(ShelfsightError) as failed:
        fetch(f"{source.url}/1")
    assert (failed.value.code, len(source.requests), canary.connections) == (code, hops, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirects_are_followed_and_not_four(status: int) -> None:
    def behave(connection: socket.socket, asked: str) -> None:
        left = int(asked.split()[1].strip("/"))
        connection.sendall(redirect(f"{left - 1}", status) if left else ok())

    with Source(behave) as source:
        fetched = fetch(f"{source.url}/3")
        assert (fetched.url, fetched.data) == (f"{source.url}/0", b"picture")
        with pytest.raises(UpstreamError) as failed:
            fetch(f"{source.url}/4")
    assert failed.value.code == "upstream_error"
    assert len(source.requests) == 8


def test_a_loop_ends() -> None:
    assert fails(redirect("/")).code == "upstream_error"


def test_a_redirect_without_an_address_leads_nowhere() -> None:
    assert fails(b"HTTP/1.1 302 Where\r\nContent-Length: 0\r\n\r\n").code == "upstream_error"


def test_a_name_that_changes_its_mind_is_asked_once_and_its_first_answer_holds(canary: Source) -> None:
    answers: list[str] = []

    def resolve(_: str) -> Iterable[Address]:
        answers.append("127.0.0.1" if answers else HERE)
        return [ip_address(answers[-1])]

    got = Fetcher(Fetch(**PERMITTED), resolve)
    with Source(says(ok(b"first"))) as source:
        assert got.fetch(f"http://changing.example:{source.port}/", max_bytes=MAX).data == b"first"
        assert answers == [HERE]
        assert f"Host: changing.example:{source.port}\r\n" in source.requests[0]
        for port in (source.port, canary.port):
            with pytest.raises(UrlRefused, match="address"):
                got.fetch(f"http://changing.example:{port}/", max_bytes=MAX)
    assert canary.connections == 0


def test_a_name_that_changes_its_mind_between_redirects_is_refused(canary: Source) -> None:
    answers = iter([HERE, "127.0.0.1"])
    with Source(says(redirect(f"http://changing.example:{canary.port}/"))) as source, pytest.raises(UrlRefused) as refused:
        Fetcher(Fetch(**PERMITTED), lambda _: [ip_address(next(answers))]).fetch(f"http://changing.example:{source.port}/", max_bytes=MAX)
    assert (refused.value.code, len(source.requests), canary.connections) == ("blocked_address", 1, 0)


def test_what_the_environment_says_of_proxies_and_passwords_is_not_heeded(canary: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, canary.url)
        monkeypatch.setenv(name.upper(), canary.url)
    (tmp_path / ".netrc").write_text(f"machine {HERE} login me password word")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Source(says(ok())) as source:
        assert fetch(source.url).data == b"picture"
    assert canary.connections == 0
    assert "Authorization" not in source.requests[0]


def test_this_machines_resolver_is_asked() -> None:
    with Source(says(ok()), "127.0.0.1") as source:
        url = f"http://localhost:{source.port}/"
        assert Fetcher(Fetch(permitted_hosts=("localhost",))).fetch(url, max_bytes=MAX).data == b"picture"
        with pytest.raises(UrlRefused):
            Fetcher(Fetch()).fetch(url, max_bytes=MAX)
    assert source.connections == 1


def test_the_other_family_is_dialled_when_the_first_cannot_be() -> None:
    with Source(says(ok())) as source:
        both = [ip_address("::1"), ip_address(HERE)]  # nobody listens at ::1 there
        got = Fetcher(Fetch(permitted_hosts=("both.example",)), lambda _: both)
        assert got.fetch(f"http://both.example:{source.port}/", max_bytes=MAX).data == b"picture"


def test_every_way_of_being_unreadable_sounds_the_same() -> None:
    with socket.create_server((HERE, 0)) as server:
        closed = server.getsockname()[1]
    with pytest.raises(UpstreamError) as refused:
        fetch(f"http://{HERE}:{closed}/")
    sentences = {refused.value.detail, fails(b"").detail, fails(b"SSH-2.0-secret\r\n").detail, fails(b"HTTP/1.1 200 OK\r\n").detail}
    assert len(sentences) == 1
    assert str(closed) not in refused.value.detail


# Sizes


@pytest.mark.parametrize("size", [0, 1, MAX])
def test_the_limit_itself_is_not_too_much(size: int) -> None:
    for answer in (ok(b"x" * size), b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * size, ok(gzip.compress(b"x" * size), Content_Encoding="gzip")):
        with Source(says(answer)) as source:
            assert fetch(source.url).data == b"x" * size


def test_an_announced_size_is_believed_when_it_is_too_large() -> None:
    def behave(connection: socket.socket, _: str) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {MAX + 1}\r\n\r\n".encode())
        connection.recv(1)  # whoever waits for it is too late

    failed = fails(behave)
    assert isinstance(failed, SourceTooLarge)
    assert failed.extra == {"limit": "max_source_bytes", "value": MAX}


def endless(head: bytes, part: bytes) -> Behaviour:
    """Send a head, and a part again and again, until nobody listens."""

    def behave(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return behave


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_raw = zlib.compressobj(wbits=-15)
ZEROS = _raw.compress(b"\x00" * 1_000_000) + _raw.flush(zlib.Z_FULL_FLUSH)
"""A part of a gzip stream that may come any number of times."""
ENDLESS = {
    "until closed": (HEAD + b"\r\n", b"x" * 10_000, "source_too_large"),
    "chunked": (CHUNKED, b"2710\r\n" + b"x" * 10_000 + b"\r\n", "source_too_large"),
    "a small size beside chunks": (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000, "upstream_error"),
    "one chunk": (CHUNKED + b"FFFFFFFFFF\r\n", b"x" * 10_000, "source_too_large"),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 1000, "upstream_error"),
    "borders of chunks": (CHUNKED, b"1;" + b"e" * 1000 + b"\r\nx\r\n", "upstream_error"),
    "a trailer": (CHUNKED + b"0\r\n", b"X: y\r\n" * 1000, "upstream_error"),
    "gzip": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], ZEROS, "source_too_large"),
    "a header": (HEAD + b"X: ", b"x" * 10_000, "upstream_error"),
    "headers": (HEAD, b"X: y\r\n" * 1000, "upstream_error"),
    "a status": (b"HTTP/1.1 200 ", b"x" * 10_000, "upstream_error"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 100, "upstream_error"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_broken_off(what: str) -> None:
    head, part, code = ENDLESS[what]
    with Source(endless(head, part)) as source, pytest.raises(ShelfsightError) as failed:
        fetch(source.url)
    assert failed.value.code == code
    assert source.ended.wait(60), "the connection is still open"


@pytest.mark.parametrize("what", ["a header", "headers", "interim answers", "borders of chunks", "chunks of a byte"])
def test_what_is_around_the_content_has_a_limit_of_its_own(what: str) -> None:
    head, part, _ = ENDLESS[what]
    with Source(endless(head, part)) as source, pytest.raises(UpstreamError, match="around its content"):
        fetch(source.url)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [(CHUNKED, "around its content"), (HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n" + gzip.compress(b"x") + b"\r\n", "not compressed")],
    ids=["around every byte", "behind the end of gzip"],
)
def test_what_is_tedious_to_take_apart_is_broken_off_long_before_its_limit(head: bytes, sentence: str) -> None:
    with Source(endless(head, b"1\r\nx\r\n" * 10_000)) as source, pytest.raises(UpstreamError, match=sentence):
        fetcher(whole_s=60).fetch(source.url, max_bytes=100_000_000)  # all of that would take minutes


@pytest.mark.parametrize("part", [1, 100, 5000])
def test_content_in_many_parts_is_whole(part: int) -> None:
    def behave(connection: socket.socket, _: str) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(CHUNKED)
        for place in range(0, len(data), part):
            piece = data[place : place + part]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    data = bytes(range(256)) * (390 if part > 1 else 10)
    with Source(behave) as source:
        assert fetch(source.url).data == data


def test_a_bomb_is_broken_off_within_the_limit() -> None:
    bomb = zlib.compressobj(wbits=31)
    packed = bomb.compress(b"\x00" * 50_000_000) + bomb.flush()
    assert len(packed) < MAX
    with Source(says(ok(packed, Content_Encoding="gzip"))) as source:
        got = fetcher()
        tracemalloc.start()
        try:
            with pytest.raises(SourceTooLarge):
                got.fetch(source.url, max_bytes=MAX)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 20 * MAX
    assert fails(ok(gzip.compress(packed), Content_Encoding="gzip, gzip")).code == "upstream_error"


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
    ],
    ids=range(8),
)
def test_content_in_an_encoding_that_is_not_undone_is_refused(data: bytes, encoding: str) -> None:
    failed = fails(ok(data, Content_Encoding=encoding))
    assert (type(failed), failed.code) == (UpstreamError, "upstream_error")


def test_a_body_is_as_long_as_it_says_and_no_longer() -> None:
    with Source(says(ok(b"picture and more", Content_Length="7"))) as source:
        assert fetch(source.url).data == b"picture"


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"pict", Content_Length="7"),
        HEAD + b"Content-Length: 7\r\nContent-Length: 8\r\n\r\npicture!",
        *(HEAD + f"Content-Length: {length}\r\n\r\npicture".encode() for length in ("-1", "-0", "+7", "0x7", "0_7", "1e1", "7 7", "7, 8", "", "\u0667")),
        HEAD + b"Content-Length : 7\r\n\r\npicture",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        CHUNKED + b"7\r\npict",
        CHUNKED + b"7\r\npicture\r\n",
        CHUNKED + b"7\r\npicture..0\r\n\r\n",
        CHUNKED + b"7\r\npicture\r\n0\r\nNo colon\r\n\r\n",
        *(CHUNKED + size + b"\r\npicture\r\n0\r\n\r\n" for size in (b"zz", b"-7", b"+7", b" 7", b"0x7", b"0_7", b"")),
        CHUNKED + b"7\npicture\n0\n\n",
        CHUNKED + b"F" * 30 + b"\r\npicture",
        *(HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n7\r\npicture\r\n0\r\n\r\n" for coding in (b"gzip", b"identity", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"\x0bchunked")),
        HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n7\r\npicture\r\n0\r\n\r\n",
        HEAD + b"No colon\r\n\r\npicture",
        HEAD + b" X: folded\r\n\r\npicture",
        HEAD + b"X: a\rContent-Length: 3\r\n\r\npicture",
        HEAD + b"X: \x00\r\n\r\npicture",
        *(b"HTTP/1.1 " + status + b" OK\r\n\r\npicture" for status in (b"abc", b"000", b"099", b"1000", b"2e2", b"-200")),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\npicture",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 7\r\n\r\npicture" + ok(),
        b"ICY 200 OK\r\n\r\npicture",
        b"http/1.1 200 OK\r\n\r\npicture",
        b"\r\n" + ok(),
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18,
        b"picture",
        b"\x16\x03\x01\x02\x00",
        b"",
    ],
    ids=lambda answer: ascii(answer)[-50:],
)
def test_a_broken_answer_is_the_sources_fault(answer: bytes) -> None:
    failed = fails(answer)
    assert (type(failed), failed.code) == (UpstreamError, "upstream_error")


# Times


PATIENT: dict[str, Any] = {"resolve_s": 60, "connect_s": 60, "first_byte_s": 60, "whole_s": 120}
"""So that the one limit that a test sets is what ends it, on a slow machine too."""


def slowly(head: bytes, drip: bytes) -> Behaviour:
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
        (ok(Content_Length="1000"), b"x", "whole_s"),
        (CHUNKED, b"1\r\nx\r\n", "whole_s"),
        (CHUNKED + b"1;", b"x", "whole_s"),
    ],
    ids=["nothing", "a status", "a header", "headers", "interim answers", "until closed", "a body", "chunks", "a border"],
)
def test_no_drip_outlasts_the_time_limit(head: bytes, drip: bytes, limit: str) -> None:
    began = time.monotonic()
    assert isinstance(fails(slowly(head, drip), **{**PATIENT, limit: 1.0}), UpstreamTimeout)
    assert 1.0 <= time.monotonic() - began < PATIENT["first_byte_s"]


def test_redirects_do_not_wind_the_clock_up() -> None:
    def behave(connection: socket.socket, _: str) -> None:
        time.sleep(0.4)
        connection.sendall(redirect("/"))

    assert isinstance(fails(behave, **{**PATIENT, "whole_s": 1.0, "max_redirects": 10}), UpstreamTimeout)


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
    with socket.create_server((HERE, 0)) as server:
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(UpstreamTimeout):
            fetch(f"https://{HERE}:{server.getsockname()[1]}/", **{**PATIENT, "connect_s": 1.0})
    assert 1.0 <= time.monotonic() - began < PATIENT["first_byte_s"]
    thread.join(60)
    assert not thread.is_alive(), "the connection is still open"


# How much at once


def test_so_many_at_once_from_one_source_and_in_all() -> None:
    go = threading.Event()

    def behave(connection: socket.socket, _: str) -> None:
        go.wait(60)
        connection.sendall(ok())

    rules = Fetch(permitted_hosts=("a.example", "b.example"), max_at_once=3, max_per_source=2, **PATIENT, **PERMITTED)
    moved: set[str] = set()
    got = Fetcher(rules, lambda name: [ip_address("127.0.0.10" if name in moved else HERE)])
    with Source(behave) as source, Source(behave, "127.0.0.10") as other:
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
        elsewhere = Fetcher(Fetch(permitted_networks=(HERE, "127.0.0.10"), max_at_once=1, **PATIENT), nobody)
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


# TLS


class Tls:
    """A certificate for ``right.example`` and an address, and what clients named when they came."""

    def __init__(self, folder: Path) -> None:
        """Make it with the openssl program."""
        self.authority, key = folder / "cert.pem", folder / "key.pem"
        names = f"subjectAltName=DNS:right.example,DNS:*.right.example,IP:{HERE}"
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
        files: list[str | Path] = ["-keyout", key, "-out", self.authority]
        subprocess.run([*command, "-subj", "/CN=test", "-addext", names, *files], check=True, capture_output=True, timeout=30)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.authority, key)
        self.named: list[str | None] = []
        self.context.sni_callback = lambda _, name, __: self.named.append(name)

    def fetch(self, url: str, *, authority: bool = True) -> Fetched:
        """Fetch; every name leads to the test's own source."""
        rules = Fetch(ca_file=self.authority if authority else None, **PERMITTED)
        return Fetcher(rules, lambda _: [ip_address(HERE)]).fetch(url, max_bytes=MAX)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Make a certificate."""
    return Tls(tmp_path_factory.mktemp("tls"))


def test_the_certificate_is_checked_for_the_name_and_the_name_is_said(tls: Tls) -> None:
    tls.named.clear()
    with Source(says(ok()), tls=tls.context) as source:
        assert tls.fetch(f"https://right.example:{source.port}/").data == b"picture"
        assert tls.fetch(f"https://WWW.right.example.:{source.port}/").url == f"https://www.right.example:{source.port}/"
        assert tls.fetch(source.url).data == b"picture"
        assert tls.named == ["right.example", "www.right.example", None]
        hosts = [f"Host: {host}:{source.port}\r\n" in asked for host, asked in zip(("right.example", "www.right.example", HERE), source.requests, strict=True)]
        assert hosts == [True] * 3


def test_a_certificate_for_another_name_or_of_an_unknown_authority_is_not_accepted(tls: Tls) -> None:
    with Source(says(ok()), tls=tls.context) as source:
        for url, known in ((f"https://wrong.example:{source.port}/", True), (f"https://a.b.right.example:{source.port}/", True), (source.url, False)):
            with pytest.raises(UpstreamError) as failed:
                tls.fetch(url, authority=known)
            assert (failed.value.code, "certificate" in failed.value.detail) == ("upstream_error", True)
    assert source.requests == []


def test_from_https_only_to_https(tls: Tls) -> None:
    with Source(says(ok())) as plain, Source(says(redirect(plain.url)), tls=tls.context) as down:
        with pytest.raises(UpstreamError, match="https to http"):
            tls.fetch(down.url)
        assert plain.connections == 0
    with Source(says(ok()), tls=tls.context) as secure, Source(says(redirect(secure.url))) as up:
        assert tls.fetch(up.url).url == f"{secure.url}/"


def test_an_authority_that_cannot_be_read_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Fetcher(Fetch(ca_file=tmp_path / "none.pem"))
