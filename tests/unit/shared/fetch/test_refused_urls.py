"""Nothing that leads to a place of our own is so much as dialled, however it is written."""

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
from tests.unit.shared.fetch.hostile_urls import attacks, hosts, resolver

WITHOUT_NETWORK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


drawn: list[Address] = []
"""What ``drawn.example`` resolves to."""


def resolve(name: str) -> Iterable[Address]:
    return list(drawn) if name == "drawn.example" else resolver(name)


FETCHER = Fetcher(Fetch(), resolve)


def refusal(url: str, answer: Iterable[Address] = ()) -> str:
    """Give the code that a URL is refused with."""
    drawn[:] = answer
    with pytest.raises(UrlRefused) as refused:
        FETCHER.fetch(url, max_bytes=1)
    assert (refused.value.status, refused.value.extra) == (422, {})
    return refused.value.code


def test_there_are_many_attacks_and_none_twice() -> None:
    assert len(attacks()) == len(set(attacks())) >= 300


def test_what_listens_here_would_hear_a_connection(heard: list[str]) -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
    assert "socket.connect" in heard


@pytest.mark.parametrize(("url", "code"), attacks(), ids=lambda value: ascii(value)[:60])
def test_each_attack_is_refused_and_nothing_is_dialled(heard: list[str], url: str, code: str) -> None:
    assert refusal(url) == code
    assert heard == []


@pytest.mark.parametrize("form", ["https://{}", "http://{}:443/a?b#c", "HTTP://{}:22/", "https://{}?@public.example"])
def test_a_host_is_refused_in_every_url(heard: list[str], form: str) -> None:
    refused = {(host, code): refusal(form.format(host)) for host, code in hosts()}
    assert {asked for asked, code in refused.items() if code != asked[1]} == set()
    assert heard == []


def spellings(address: IPv4Address) -> list[str]:
    """Write an IPv4 address in all the ways that some program reads."""
    number, octets = int(address), address.packed
    first, second, third, last = octets
    full_width = str(address).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)} | {ord("."): "。"})
    plain = [
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
    inside = [mapped.exploded, f"::ffff:{address}", nat64.compressed, f"64:ff9b::{address}"]
    return [*plain, *(f"{way}." for way in plain), *(f"[{way}]" for way in inside)]


NOT_GLOBAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip


def within(network: str) -> st.SearchStrategy[IPv4Address]:
    whole = IPv4Network(network)
    return st.integers(0, whole.num_addresses - 1).map(whole.__getitem__)


def within6(network: str) -> st.SearchStrategy[IPv6Address]:
    whole = IPv6Network(network)
    return st.integers(0, whole.num_addresses - 1).map(whole.__getitem__)


@WITHOUT_NETWORK
@given(address=st.sampled_from(NOT_GLOBAL).flatmap(within))
def test_no_spelling_of_a_special_ipv4_address_is_dialled(heard: list[str], address: IPv4Address) -> None:
    assert {way: refusal(f"http://{way}/") for way in spellings(address)} == dict.fromkeys(spellings(address), "blocked_address")
    assert heard == []


SPECIAL_6 = ["::/8", "100::/64", "64:ff9b:1::/48", "2001::/32", "2001:db8::/32", "2002::/16", "3fff::/20", "fc00::/7", "fe80::/10", "ff00::/8"]


@WITHOUT_NETWORK
@given(address=st.sampled_from(SPECIAL_6).flatmap(within6))
def test_no_spelling_of_a_special_ipv6_address_is_dialled(heard: list[str], address: IPv6Address) -> None:
    if address.ipv4_mapped and is_public(address.ipv4_mapped):
        return
    ways = {address.compressed, address.exploded, address.exploded.upper()}
    assert {refusal(f"http://[{way}]/") for way in ways} == {"blocked_address"}
    assert {refusal("http://drawn.example/", [address])} == {"blocked_address"}
    assert heard == []


@WITHOUT_NETWORK
@given(bad=st.sampled_from(NOT_GLOBAL).flatmap(within), good=st.lists(st.just(ip_address("93.184.215.14")), max_size=5), place=st.integers(0, 5))
def test_one_bad_address_spoils_a_name(heard: list[str], bad: IPv4Address, good: list[Address], place: int) -> None:
    assert refusal("http://drawn.example/", [*good[:place], bad, *good[place:]]) == "blocked_address"
    assert heard == []


NAMES_ONLY = Fetcher(Fetch(allowed_domains=("some.example",)), resolver)
"""Among all texts there are public addresses; with a list of names none of them is dialled."""

PIECES = st.sampled_from(
    ["http://", "https://", "HTTP:", "//", "/", "\\", "@", ":", "80", "[", "]", "::1", "%", ".", "..", "127", "0x7f", "xn--", "a", "ß", "。", "\u200d", "#", "?", " ", "\t", "-", "\uff11"]
)  # fmt: skip


@WITHOUT_NETWORK
@given(url=st.text() | st.lists(PIECES).map("".join) | st.text().map("http://{}".format) | st.lists(PIECES).map(lambda pieces: f"http://{''.join(pieces)}/"))
@example("http://\u0378.example/")
def test_any_text_ends_with_an_error_of_ours(heard: list[str], url: str) -> None:
    with pytest.raises(ShelfsightError) as refused:
        NAMES_ONLY.fetch(url, max_bytes=1)
    assert refused.value.code in {"bad_url", "blocked_host", "unresolvable_host"}
    assert heard == []


@settings(deadline=None)
@given(address=st.ip_addresses())
def test_what_python_takes_for_special_is_not_public(address: Address) -> None:
    if is_public(address):
        leads_inside = address in IPv6Network("64:ff9b::/96") or address in IPv6Network("::ffff:0:0/96")
        judged = IPv4Address(address.packed[-4:]) if leads_inside else address
        special = (judged.is_private, judged.is_loopback, judged.is_link_local, judged.is_multicast, judged.is_reserved, judged.is_unspecified)
        assert not any(special)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://user:word@public.example/", "A URL with a user name or a password in it is not fetched."),
        ("ftp://public.example/", "Only http and https URLs are fetched."),
        ("http://public.example:8080/", "Only the ports 80 and 443 are asked."),
        (f"http://public.example/{'x' * 9000}", "The URL is longer than 8,190 characters."),
    ],
)
def test_a_refusal_says_what_to_write_otherwise(url: str, sentence: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        FETCHER.fetch(url, max_bytes=1)
    assert refused.value.detail == sentence


def test_a_refusal_names_the_rule_and_nothing_that_was_found() -> None:
    for url, _ in attacks():
        with pytest.raises(UrlRefused) as refused:
            FETCHER.fetch(url, max_bytes=1)
        assert not any(word in refused.value.detail for word in ("127", "169", "10.", "::", "example", "localhost", "refused", "open"))
