"""TLS: the certificate of a source is verified."""

import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest

from shared.errors import UpstreamError
from shared.fetch.client import Fetcher, FetchResult
from shared.settings import Fetch
from tests.integration.shared.fetch.fetching import MAX, PERMITTED
from tests.support.certificates import make_certificate
from tests.support.image_sources import PERMITTED_ADDRESS, SourceServer, ok_response, redirect_response, respond_with

pytestmark = pytest.mark.slow


class Tls:
    """A certificate for ``right.example`` and an address, and the server names (SNI) that clients sent."""

    def __init__(self, folder: Path) -> None:
        made = make_certificate(folder, f"DNS:right.example,DNS:*.right.example,IP:{PERMITTED_ADDRESS}")
        self.authority = made.certificate
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(made.certificate, made.key)
        self.server_names: list[str | None] = []
        self.context.sni_callback = lambda _, name, __: self.server_names.append(name)

    def fetch(self, url: str, *, authority: bool = True) -> FetchResult:
        """Fetch a URL; every name resolves to the source of the test."""
        rules = Fetch(ca_file=self.authority if authority else None, **PERMITTED)
        return Fetcher(rules, lambda _: [ip_address(PERMITTED_ADDRESS)]).fetch(url, max_bytes=MAX)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for all tests of the module."""
    return Tls(tmp_path_factory.mktemp("tls"))


def test_the_certificate_is_verified_for_the_name_and_the_name_is_sent(tls: Tls) -> None:
    tls.server_names.clear()
    with SourceServer(respond_with(ok_response()), tls=tls.context) as source:
        assert tls.fetch(f"https://right.example:{source.port}/").data == b"picture"
        assert (
            tls.fetch(f"https://WWW.right.example.:{source.port}/").url == f"https://www.right.example:{source.port}/"
        )
        assert tls.fetch(source.url).data == b"picture"
        assert tls.server_names == ["right.example", "www.right.example", None]
        hosts = [
            f"Host: {host}:{source.port}\r\n" in request
            for host, request in zip(("right.example", "www.right.example", PERMITTED_ADDRESS), source.requests, strict=True)
        ]
        assert hosts == [True] * 3


def test_a_certificate_for_another_name_or_of_an_unknown_authority_is_refused(tls: Tls) -> None:
    with SourceServer(respond_with(ok_response()), tls=tls.context) as source:
        for url, known in (
            (f"https://wrong.example:{source.port}/", True),
            (f"https://a.b.right.example:{source.port}/", True),
            (source.url, False),
        ):
            with pytest.raises(UpstreamError) as failed:
                tls.fetch(url, authority=known)
            assert (failed.value.code, "certificate" in failed.value.detail) == ("upstream_error", True)
    assert source.requests == []


def test_a_redirect_from_https_to_http_is_refused(tls: Tls) -> None:
    with SourceServer(respond_with(ok_response())) as plain_source, SourceServer(respond_with(redirect_response(plain_source.url)), tls=tls.context) as down:
        with pytest.raises(UpstreamError, match="https to http"):
            tls.fetch(down.url)
        assert plain_source.connections == 0
    with SourceServer(respond_with(ok_response()), tls=tls.context) as secure, SourceServer(respond_with(redirect_response(secure.url))) as up:
        assert tls.fetch(up.url).url == f"{secure.url}/"


def test_an_unreadable_ca_file_fails_when_the_fetcher_is_created(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Fetcher(Fetch(ca_file=tmp_path / "none.pem"))
