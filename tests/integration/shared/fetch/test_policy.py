"""Fetching reaches what it may and nothing else; what must not be reached would notice."""

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from shared.errors import ShelfsightError, UpstreamError, UrlRefused
from shared.fetch.addresses import Address
from shared.fetch.client import Fetcher
from shared.settings import Fetch
from tests.integration.shared.fetch.fetching import MAX, PATIENT, PERMITTED, fails, fetch
from tests.support.image_sources import PERMITTED_ADDRESS, SourceServer, ok_response, redirect_response, respond_with
from tests.unit.shared.fetch import hostile_urls

pytestmark = pytest.mark.slow

def test_the_canary_would_notice(canary: SourceServer) -> None:
    assert fetch(canary.url, permitted_networks=["127.0.0.1"]).data == b"canary"
    assert canary.connections == 1


def test_no_attack_reaches_what_listens_on_loopback() -> None:
    with ExitStack() as stack:
        listening = [stack.enter_context(SourceServer(respond_with(ok_response(b"canary")), "127.0.0.1")) for _ in range(2)]
        if socket.has_ipv6:
            listening.append(stack.enter_context(SourceServer(respond_with(ok_response(b"canary")), "::1")))
        got = Fetcher(Fetch(), hostile_urls.resolver)
        tried = [url for url, _ in hostile_urls.attacks()]
        tried += [f"{scheme}://{host}:{source.port}/" for scheme in ("http", "https") for host, _ in hostile_urls.hosts() for source in listening]
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
def test_a_redirect_is_checked_like_the_url_itself(canary: SourceServer, location: str, code: str, hops: int) -> None:
    def behave(connection: socket.socket, asked: str) -> None:
        hop = int(asked.split()[1].strip("/"))
        there = location.format(port=canary.port).encode("latin-1")
        connection.sendall(redirect_response(f"/{hop + 1}") if hop < hops else redirect_response("LOCATION").replace(b"LOCATION", there))

    with SourceServer(behave) as source, pytest.raises(ShelfsightError) as failed:
        fetch(f"{source.url}/1")
    assert (failed.value.code, len(source.requests), canary.connections) == (code, hops, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirects_are_followed_and_not_four(status: int) -> None:
    def behave(connection: socket.socket, asked: str) -> None:
        left = int(asked.split()[1].strip("/"))
        connection.sendall(redirect_response(f"{left - 1}", status) if left else ok_response())

    with SourceServer(behave) as source:
        fetched = fetch(f"{source.url}/3")
        assert (fetched.url, fetched.data) == (f"{source.url}/0", b"picture")
        with pytest.raises(UpstreamError) as failed:
            fetch(f"{source.url}/4")
    assert failed.value.code == "upstream_error"
    assert len(source.requests) == 8


def test_a_loop_ends() -> None:
    assert fails(redirect_response("/")).code == "upstream_error"


def test_a_redirect_without_an_address_leads_nowhere() -> None:
    assert fails(b"HTTP/1.1 302 Where\r\nContent-Length: 0\r\n\r\n").code == "upstream_error"


def test_a_name_that_changes_its_mind_is_asked_once_and_its_first_answer_holds(canary: SourceServer) -> None:
    answers: list[str] = []

    def resolve(_: str) -> Iterable[Address]:
        answers.append("127.0.0.1" if answers else PERMITTED_ADDRESS)
        return [ip_address(answers[-1])]

    got = Fetcher(Fetch(**PERMITTED), resolve)
    with SourceServer(respond_with(ok_response(b"first"))) as source:
        assert got.fetch(f"http://changing.example:{source.port}/", max_bytes=MAX).data == b"first"
        assert answers == [PERMITTED_ADDRESS]
        assert f"Host: changing.example:{source.port}\r\n" in source.requests[0]
        for port in (source.port, canary.port):
            with pytest.raises(UrlRefused, match="address"):
                got.fetch(f"http://changing.example:{port}/", max_bytes=MAX)
    assert canary.connections == 0


def test_a_name_that_changes_its_mind_between_redirects_is_refused(canary: SourceServer) -> None:
    answers = iter([PERMITTED_ADDRESS, "127.0.0.1"])
    with SourceServer(respond_with(redirect_response(f"http://changing.example:{canary.port}/"))) as source, pytest.raises(UrlRefused) as refused:
        Fetcher(Fetch(**PERMITTED), lambda _: [ip_address(next(answers))]).fetch(f"http://changing.example:{source.port}/", max_bytes=MAX)
    assert (refused.value.code, len(source.requests), canary.connections) == ("blocked_address", 1, 0)


def test_what_the_environment_says_of_proxies_and_passwords_is_not_heeded(canary: SourceServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, canary.url)
        monkeypatch.setenv(name.upper(), canary.url)
    (tmp_path / ".netrc").write_text(f"machine {PERMITTED_ADDRESS} login me password word")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with SourceServer(respond_with(ok_response())) as source:
        assert fetch(source.url).data == b"picture"
    assert canary.connections == 0
    assert "Authorization" not in source.requests[0]


def test_this_machines_resolver_is_asked() -> None:
    with SourceServer(respond_with(ok_response()), "127.0.0.1") as source:
        url = f"http://localhost:{source.port}/"
        assert Fetcher(Fetch(permitted_hosts=("localhost",), **PATIENT)).fetch(url, max_bytes=MAX).data == b"picture"
        with pytest.raises(UrlRefused):
            Fetcher(Fetch()).fetch(url, max_bytes=MAX)
    assert source.connections == 1


def test_the_other_family_is_dialled_when_the_first_cannot_be() -> None:
    with SourceServer(respond_with(ok_response())) as source:
        both = [ip_address("::1"), ip_address(PERMITTED_ADDRESS)]  # nobody listens at ::1 there
        got = Fetcher(Fetch(permitted_hosts=("both.example",), **PATIENT), lambda _: both)
        assert got.fetch(f"http://both.example:{source.port}/", max_bytes=MAX).data == b"picture"


def test_every_way_of_being_unreadable_sounds_the_same() -> None:
    with socket.create_server((PERMITTED_ADDRESS, 0)) as server:
        closed = server.getsockname()[1]
    with pytest.raises(UpstreamError) as refused:
        fetch(f"http://{PERMITTED_ADDRESS}:{closed}/")
    sentences = {refused.value.detail, fails(b"").detail, fails(b"SSH-2.0-secret\r\n").detail, fails(b"HTTP/1.1 200 OK\r\n").detail}
    assert len(sentences) == 1
    assert str(closed) not in refused.value.detail
