"""No connection is made to an internal address, in whatever way the URL is written."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.errors import ShelfsightError, UrlRefused
from shared.fetch.addresses import Address, is_public
from shared.fetch.client import Fetcher
from shared.settings import Fetch
from tests.unit.shared.fetch.hostile_urls import attacks, hosts
from tests.unit.shared.fetch.hostile_urls import resolve as resolve_hostile

WITHOUT_NETWORK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


generated_addresses: list[Address] = []
"""The addresses that ``generated.example`` resolves to."""


def resolve(name: str) -> Iterable[Address]:
    return list(generated_addresses) if name == "generated.example" else resolve_hostile(name)


FETCHER = Fetcher(Fetch(), resolve)


def refusal_code(url: str, addresses: Iterable[Address] = ()) -> str:
    """Return the error code that a URL is refused with."""
    generated_addresses[:] = addresses
    with pytest.raises(UrlRefused) as refused:
        FETCHER.fetch(url, max_bytes=1)
    assert (refused.value.status, refused.value.extra) == (422, {})
    return refused.value.code


def test_there_are_many_attacks_without_duplicates() -> None:
    assert len(attacks()) == len(set(attacks())) >= 300


def test_a_connection_is_recorded(socket_events: list[str]) -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
    assert "socket.connect" in socket_events


@pytest.mark.parametrize(("url", "code"), attacks(), ids=lambda value: ascii(value)[:60])
def test_each_attack_is_refused_without_a_connection(socket_events: list[str], url: str, code: str) -> None:
    assert refusal_code(url) == code
    assert socket_events == []


@pytest.mark.parametrize(
    "template", ["https://{}", "http://{}:443/a?b#c", "HTTP://{}:22/", "https://{}?@public.example"]
)
def test_a_host_is_refused_in_every_url(socket_events: list[str], template: str) -> None:
    refused = {(host, code): refusal_code(template.format(host)) for host, code in hosts()}
    assert {expected for expected, code in refused.items() if code != expected[1]} == set()
    assert socket_events == []


def spellings(address: IPv4Address) -> list[str]:
    """Return an IPv4 address in all spellings that some program accepts."""
    number, octets = int(address), address.packed
    first, second, third, last = octets
    full_width = str(address).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)} | {ord("."): "。"})
    unbracketed = [
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(hex(octet) for octet in octets),
        ".".join(f"0{octet:o}" for octet in octets),
        ".".join(f"000{octet:o}" for octet in octets),
        f"{first}.{number & 0xFFFFFF}",
        f"{hex(first)}.0{second:o}.{third << 8 | last}",
        full_width,
    ]
    mapped = IPv6Address(0xFFFF_0000_0000 | number)
    nat64 = IPv6Address((0x64_FF9B << 96) | number)
    embedded = [mapped.exploded, f"::ffff:{address}", nat64.compressed, f"64:ff9b::{address}"]
    return [*unbracketed, *(f"{spelling}." for spelling in unbracketed), *(f"[{spelling}]" for spelling in embedded)]


SPECIAL_4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip


def addresses_in(network: str) -> st.SearchStrategy[IPv4Address]:
    addresses = IPv4Network(network)
    return st.integers(0, addresses.num_addresses - 1).map(addresses.__getitem__)


def addresses6_in(network: str) -> st.SearchStrategy[IPv6Address]:
    addresses = IPv6Network(network)
    return st.integers(0, addresses.num_addresses - 1).map(addresses.__getitem__)


@WITHOUT_NETWORK
@given(address=st.sampled_from(SPECIAL_4).flatmap(addresses_in))
def test_no_spelling_of_a_special_ipv4_address_is_connected_to(socket_events: list[str], address: IPv4Address) -> None:
    assert {spelling: refusal_code(f"http://{spelling}/") for spelling in spellings(address)} == dict.fromkeys(
        spellings(address), "blocked_address"
    )
    assert socket_events == []


SPECIAL_6 = [
    "::/8",
    "100::/64",
    "64:ff9b:1::/48",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
]


@WITHOUT_NETWORK
@given(address=st.sampled_from(SPECIAL_6).flatmap(addresses6_in))
def test_no_spelling_of_a_special_ipv6_address_is_connected_to(socket_events: list[str], address: IPv6Address) -> None:
    if address.ipv4_mapped and is_public(address.ipv4_mapped):
        return
    forms = {address.compressed, address.exploded, address.exploded.upper()}
    assert {refusal_code(f"http://[{form}]/") for form in forms} == {"blocked_address"}
    assert {refusal_code("http://generated.example/", [address])} == {"blocked_address"}
    assert socket_events == []


@WITHOUT_NETWORK
@given(
    bad=st.sampled_from(SPECIAL_4).flatmap(addresses_in),
    good=st.lists(st.just(ip_address("93.184.215.14")), max_size=5),
    index=st.integers(0, 5),
)
def test_one_bad_address_among_good_ones_is_refused(
    socket_events: list[str], bad: IPv4Address, good: list[Address], index: int
) -> None:
    assert refusal_code("http://generated.example/", [*good[:index], bad, *good[index:]]) == "blocked_address"
    assert socket_events == []


NAMES_ONLY = Fetcher(Fetch(allowed_domains=("some.example",)), resolve_hostile)
"""Generated texts may contain public addresses; with a list of allowed names none of them is connected to."""

PIECES = st.sampled_from(
    ["http://", "https://", "HTTP:", "//", "/", "\\", "@", ":", "80", "[", "]", "::1", "%", ".", "..", "127", "0x7f", "xn--", "a", "ß", "。", "\u200d", "#", "?", " ", "\t", "-", "\uff11"]
)  # fmt: skip


@WITHOUT_NETWORK
@given(
    url=st.text()
    | st.lists(PIECES).map("".join)
    | st.text().map("http://{}".format)
    | st.lists(PIECES).map(lambda pieces: f"http://{''.join(pieces)}/")
)
@example("http://\u0378.example/")
def test_any_text_is_refused_with_a_domain_error(socket_events: list[str], url: str) -> None:
    with pytest.raises(ShelfsightError) as refused:
        NAMES_ONLY.fetch(url, max_bytes=1)
    assert refused.value.code in {"bad_url", "blocked_host", "unresolvable_host"}
    assert socket_events == []


@settings(deadline=None)
@given(address=st.ip_addresses())
def test_an_address_that_python_calls_special_is_not_public(address: Address) -> None:
    if is_public(address):
        is_embedded = address in IPv6Network("64:ff9b::/96") or address in IPv6Network("::ffff:0:0/96")
        effective = IPv4Address(address.packed[-4:]) if is_embedded else address
        special = (
            effective.is_private,
            effective.is_loopback,
            effective.is_link_local,
            effective.is_multicast,
            effective.is_reserved,
            effective.is_unspecified,
        )
        assert not any(special)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://user:word@public.example/", "The URL contains a user name or a password; remove it."),
        ("ftp://public.example/", "The scheme of the URL is not supported; use http or https."),
        ("http://public.example:8080/", "The port of the URL is not allowed; use port 80 or 443."),
        (f"http://public.example/{'x' * 9000}", "The URL is longer than 8,190 characters."),
    ],
)
def test_a_refusal_says_what_to_do(url: str, sentence: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        FETCHER.fetch(url, max_bytes=1)
    assert refused.value.detail == sentence


def test_a_refusal_names_the_rule_and_discloses_nothing() -> None:
    for url, _ in attacks():
        with pytest.raises(UrlRefused) as refused:
            FETCHER.fetch(url, max_bytes=1)
        assert not any(
            word in refused.value.detail
            for word in ("127", "169", "10.", "::", "example", "localhost", "refused", "open")
        )
