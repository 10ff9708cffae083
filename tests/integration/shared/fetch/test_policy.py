"""Fetches reach permitted sources only; the sources that must not be reached count their connections."""

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
from tests.integration.shared.fetch.fetching import MAX, PATIENT, PERMITTED, fetch, fetch_error
from tests.support.image_sources import PERMITTED_ADDRESS, SourceServer, ok_response, redirect_response, respond_with
from tests.unit.shared.fetch import hostile_urls

pytestmark = pytest.mark.slow


def test_the_canary_counts_connections(canary: SourceServer) -> None:
    assert fetch(canary.url, permitted_networks=["127.0.0.1"]).data == b"canary"
    assert canary.connections == 1


def test_no_attack_reaches_a_source_on_loopback() -> None:
    with ExitStack() as stack:
        sources = [stack.enter_context(SourceServer(respond_with(ok_response(b"canary")), "127.0.0.1")) for _ in range(2)]
        if socket.has_ipv6:
            sources.append(stack.enter_context(SourceServer(respond_with(ok_response(b"canary")), "::1")))
        fetcher = Fetcher(Fetch(), hostile_urls.resolve)
        attacks = [url for url, _ in hostile_urls.attacks()]
        attacks += [
            f"{scheme}://{host}:{source.port}/"
            for scheme in ("http", "https")
            for host, _ in hostile_urls.hosts()
            for source in sources
        ]
        for url in attacks:
            with pytest.raises(UrlRefused):
                fetcher.fetch(url, max_bytes=MAX)
        assert len(attacks) > 1500
        assert [source.connections for source in sources] == [0] * len(sources)


REFUSED_LOCATIONS = {
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


@pytest.mark.parametrize(
    ("location", "code"), [(location, code) for code, locations in REFUSED_LOCATIONS.items() for location in locations]
)
@pytest.mark.parametrize("hops", [1, 3])
def test_a_redirect_is_checked_like_the_first_url(canary: SourceServer, location: str, code: str, hops: int) -> None:
    def behave(connection: socket.socket, request: str) -> None:
        hop = int(request.split()[1].strip("/"))
        target = location.format(port=canary.port).encode("latin-1")
        connection.sendall(redirect_response(f"/{hop + 1}") if hop < hops else redirect_response("LOCATION").replace(b"LOCATION", target))

    with SourceServer(behave) as source, pytest.raises(ShelfsightError) as failed:
        fetch(f"{source.url}/1")
    assert (failed.value.code, len(source.requests), canary.connections) == (code, hops, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirects_are_followed_and_a_fourth_is_not(status: int) -> None:
    def behave(connection: socket.socket, request: str) -> None:
        remaining = int(request.split()[1].strip("/"))
        connection.sendall(redirect_response(f"{remaining - 1}", status) if remaining else ok_response())

    with SourceServer(behave) as source:
        result = fetch(f"{source.url}/3")
        assert (result.url, result.data) == (f"{source.url}/0", b"picture")
        with pytest.raises(UpstreamError) as failed:
            fetch(f"{source.url}/4")
    assert failed.value.code == "upstream_error"
    assert len(source.requests) == 8


def test_a_redirect_loop_ends() -> None:
    assert fetch_error(redirect_response("/")).code == "upstream_error"


def test_a_redirect_without_a_location_is_an_upstream_error() -> None:
    assert fetch_error(b"HTTP/1.1 302 Where\r\nContent-Length: 0\r\n\r\n").code == "upstream_error"


def test_dns_rebinding_does_not_change_the_address_within_a_fetch(canary: SourceServer) -> None:
    resolved: list[str] = []

    def resolve(_: str) -> Iterable[Address]:
        resolved.append("127.0.0.1" if resolved else PERMITTED_ADDRESS)
        return [ip_address(resolved[-1])]

    fetcher = Fetcher(Fetch(**PERMITTED), resolve)
    with SourceServer(respond_with(ok_response(b"first"))) as source:
        assert fetcher.fetch(f"http://changing.example:{source.port}/", max_bytes=MAX).data == b"first"
        assert resolved == [PERMITTED_ADDRESS]
        assert f"Host: changing.example:{source.port}\r\n" in source.requests[0]
        for port in (source.port, canary.port):
            with pytest.raises(UrlRefused, match="address"):
                fetcher.fetch(f"http://changing.example:{port}/", max_bytes=MAX)
    assert canary.connections == 0


def test_dns_rebinding_between_redirects_is_refused(canary: SourceServer) -> None:
    addresses = iter([PERMITTED_ADDRESS, "127.0.0.1"])
    with (
        SourceServer(respond_with(redirect_response(f"http://changing.example:{canary.port}/"))) as source,
        pytest.raises(UrlRefused) as refused,
    ):
        Fetcher(Fetch(**PERMITTED), lambda _: [ip_address(next(addresses))]).fetch(
            f"http://changing.example:{source.port}/", max_bytes=MAX
        )
    assert (refused.value.code, len(source.requests), canary.connections) == ("blocked_address", 1, 0)


def test_proxies_and_passwords_of_the_environment_are_ignored(
    canary: SourceServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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


def test_the_system_resolver_is_used_by_default() -> None:
    with SourceServer(respond_with(ok_response()), "127.0.0.1") as source:
        url = f"http://localhost:{source.port}/"
        assert Fetcher(Fetch(permitted_hosts=("localhost",), **PATIENT)).fetch(url, max_bytes=MAX).data == b"picture"
        with pytest.raises(UrlRefused):
            Fetcher(Fetch()).fetch(url, max_bytes=MAX)
    assert source.connections == 1


def test_the_second_address_is_tried_when_the_first_is_unreachable() -> None:
    with SourceServer(respond_with(ok_response())) as source:
        both = [ip_address("::1"), ip_address(PERMITTED_ADDRESS)]  # no source listens on ::1
        fetcher = Fetcher(Fetch(permitted_hosts=("both.example",), **PATIENT), lambda _: both)
        assert fetcher.fetch(f"http://both.example:{source.port}/", max_bytes=MAX).data == b"picture"


def test_every_unreadable_source_has_the_same_sentence() -> None:
    with socket.create_server((PERMITTED_ADDRESS, 0)) as server:
        closed_port = server.getsockname()[1]
    with pytest.raises(UpstreamError) as refused:
        fetch(f"http://{PERMITTED_ADDRESS}:{closed_port}/")
    sentences = {
        refused.value.detail,
        fetch_error(b"").detail,
        fetch_error(b"SSH-2.0-secret\r\n").detail,
        fetch_error(b"HTTP/1.1 200 OK\r\n").detail,
    }
    assert len(sentences) == 1
    assert str(closed_port) not in refused.value.detail
