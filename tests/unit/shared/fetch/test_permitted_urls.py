"""Permitted URLs pass in one canonical spelling; lists and permissions apply exactly as documented."""

import socket
import threading
import time
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Busy, UpstreamTimeout, UrlRefused
from shared.fetch import urls
from shared.fetch.addresses import Address, client_network, effective_address, is_public
from shared.fetch.concurrency import ConcurrencyLimit
from shared.fetch.deadline import Deadline
from shared.fetch.policy import Destination, FetchPolicy
from shared.settings import Fetch
from tests.support.service_stack import wait_until
from tests.unit.shared.fetch.hostile_urls import PUBLIC_4, PUBLIC_6, resolve


def check(url: str, **rules: Any) -> Destination:
    return FetchPolicy(Fetch(**rules), resolve).check(urls.parse(url), Deadline(5))


def refusal_code(url: str, **rules: Any) -> str:
    with pytest.raises(UrlRefused) as refused:
        check(url, **rules)
    return refused.value.code


GOOD = {
    "http://public.example": "http://public.example/",
    "HTTP://Public.EXAMPLE./a/b?c=d#e": "http://public.example/a/b?c=d",
    "https://public.example:443/": "https://public.example/",
    "http://public.example:80/": "http://public.example/",
    "http://public.example:/": "http://public.example/",
    "http://public.example:443/": "http://public.example:443/",
    "https://public.example:80/": "https://public.example:80/",
    "http://public.example:00080/": "http://public.example/",
    "http://ｐｕｂｌｉｃ。example/": "http://public.example/",  # noqa: RUF001
    "http://bücher.example/": "http://xn--bcher-kva.example/",
    "http://BÜCHER.example/": "http://xn--bcher-kva.example/",
    "http://xn--bcher-kva.example/": "http://xn--bcher-kva.example/",
    "http://under_score.example/": "http://under_score.example/",
    "http://public.example?a": "http://public.example/?a",
    "http://public.example/a b/ü?ä=%20&b=c|d@e:f": "http://public.example/a%20b/%C3%BC?%C3%A4=%20&b=c|d@e:f",
    "http://public.example//x/../y": "http://public.example//x/../y",
    "http://public.example/http://127.0.0.1/": "http://public.example/http://127.0.0.1/",
    "http://public.example/@127.0.0.1": "http://public.example/@127.0.0.1",
    f"http://{PUBLIC_4}/": f"http://{PUBLIC_4}/",
    "http://8.8.8.8./": "http://8.8.8.8/",
    "http://134744072/": "http://8.8.8.8/",
    "http://0x8.0x8.2056/": "http://8.8.8.8/",
    "http://８.8.8.8/": "http://8.8.8.8/",  # noqa: RUF001
    f"https://[{PUBLIC_6.upper()}]/": f"https://[{PUBLIC_6}]/",
    "http://[::ffff:8.8.8.8]/": "http://8.8.8.8/",
    "http://[64:ff9b::8.8.8.8]/": "http://[64:ff9b::808:808]/",
    "http://1.0.0.0/": "http://1.0.0.0/",
    "http://9.255.255.255/": "http://9.255.255.255/",
    "http://172.32.0.0/": "http://172.32.0.0/",
    "http://223.255.255.255/": "http://223.255.255.255/",
    "http://168.63.129.17/": "http://168.63.129.17/",
    "http://[2a00::1]/": "http://[2a00::1]/",
}


@pytest.mark.parametrize(("given_url", "canonical"), GOOD.items(), ids=lambda value: ascii(value)[:50])
def test_a_permitted_url_passes_in_its_canonical_spelling(given_url: str, canonical: str) -> None:
    destination = check(given_url)
    assert str(destination.url) == canonical
    assert destination.addresses
    assert all(is_public(address) for address in destination.addresses)


@settings(deadline=None)
@given(url=st.sampled_from(sorted(GOOD.values())))
def test_the_canonical_spelling_is_parsed_as_itself(url: str) -> None:
    assert str(urls.parse(url)) == url


NUMBERS = st.integers(0, 2**33).flatmap(
    lambda number: st.sampled_from([str(number), hex(number), f"0{number:o}", str(number % 256), f"{number}8"])
)


@settings(deadline=None)
@given(text=st.lists(NUMBERS, min_size=1, max_size=5).map(".".join))
def test_numbers_are_parsed_like_inet_aton_of_the_c_library(text: str) -> None:
    try:
        expected = socket.inet_aton(text)
    except OSError:
        with pytest.raises(ValueError):  # noqa: PT011 -- the sentence does not matter
            urls.parse_host(text)
    else:
        assert urls.parse_host(text) == IPv4Address(expected)


def test_the_first_address_of_each_family_is_kept_in_order() -> None:
    def resolve_four(_: str) -> list[Address]:
        return [ip_address(text) for text in ("2a00::2", "8.8.8.8", "2a00::1", "9.9.9.9")]

    destination = FetchPolicy(Fetch(), resolve_four).check(urls.parse("http://some.example/"), Deadline(5))
    assert destination.addresses == (IPv6Address("2a00::2"), IPv4Address("8.8.8.8"))


def test_a_blocked_domain_blocks_its_subdomains_and_no_other_names() -> None:
    rules = {"blocked_domains": ["BÜCHER.example", "public.example."]}
    for host in (
        "public.example",
        "PUBLIC.example.",
        "a.b.public.example",
        "bücher.example",
        "xn--bcher-kva.example",
        "ｐublic.example",  # noqa: RUF001
    ):
        assert refusal_code(f"http://{host}/", **rules) == "blocked_host"
    assert refusal_code("http://notpublic.example/", **rules) == "unresolvable_host"
    assert refusal_code("http://public.example.nowhere/", **rules) == "unresolvable_host"
    assert check("http://under_score.example/", **rules)
    assert (
        refusal_code(
            "http://public.example/", **rules, allowed_domains=["public.example"], permitted_hosts=["public.example"]
        )
        == "blocked_host"
    )


def test_allowed_domains_exclude_everything_else() -> None:
    rules = {"allowed_domains": ["public.example"]}
    assert check("http://public.example/", **rules)
    assert refusal_code("http://www.public.example/", **rules) == "unresolvable_host"
    for host in ("under_score.example", "notpublic.example", "example", PUBLIC_4, f"[{PUBLIC_6}]"):
        assert refusal_code(f"http://{host}/", **rules) == "blocked_host"
    assert refusal_code("http://private.example/", allowed_domains=["private.example"]) == "blocked_address"


def test_a_permitted_host_may_have_any_address_and_port_and_other_hosts_may_not() -> None:
    rules = {"permitted_hosts": ["private.example", "loopback.example"]}
    assert check("http://PRIVATE.example.:8080/", **rules).addresses == (ip_address("192.168.1.1"),)
    assert check("http://private.example/", **rules, allowed_domains=["other.example"])
    assert refusal_code("http://192.168.1.1:8080/", **rules) == "blocked_address"
    assert refusal_code("http://sub.private.example/", **rules) == "unresolvable_host"
    assert refusal_code("http://metadata.example/", **rules) == "blocked_address"
    assert refusal_code("http://public.example:8080/", **rules) == "bad_url"


def test_a_permitted_network_permits_only_its_own_addresses() -> None:
    rules = {"permitted_networks": ["192.168.0.0/16", "fd00::/8"]}
    assert check("http://192.168.1.1:8080/", **rules)
    assert check("http://3232235777:8080/", **rules)
    assert check("http://[::ffff:192.168.1.1]:1/", **rules).addresses == (ip_address("192.168.1.1"),)
    assert check("http://[fd00::1]:65535/", **rules)
    assert check("http://private.example:8080/", **rules)
    for host in ("127.0.0.1", "192.167.255.255.loopback.example", "metadata.example", "[::1]", "10.0.0.1"):
        assert refusal_code(f"http://{host}/", **rules) in {"blocked_address", "unresolvable_host"}
    assert refusal_code("http://public.example:8080/", **rules) == "bad_url"
    assert refusal_code("http://first-public.example/", **rules) == "blocked_address"


def test_other_ports_need_every_address_to_be_permitted() -> None:
    rules = {"permitted_networks": ["10.0.0.0/8"]}
    assert check("http://first-public.example/", **rules)
    assert refusal_code("http://first-public.example:8080/", **rules) == "bad_url"


def test_public_addresses_may_be_blocked() -> None:
    rules = {"blocked_networks": [f"{PUBLIC_4}/24".replace(".14/", ".0/")]}
    for host in ("public.example", PUBLIC_4, f"[::ffff:{PUBLIC_4}]", f"[64:ff9b::{PUBLIC_4}]"):
        assert refusal_code(f"http://{host}/", **rules) == "blocked_address"
    assert check("http://8.8.8.8/", **rules)


def test_nat64_may_be_blocked_by_its_own_prefix() -> None:
    rules = {"blocked_networks": ["64:ff9b::/96"]}
    assert refusal_code("http://[64:ff9b::8.8.8.8]/", **rules) == "blocked_address"
    assert check("http://8.8.8.8/", **rules)


def test_all_addresses_of_one_client_network_count_as_one() -> None:
    def network(address: str) -> Any:
        return client_network(ip_address(address))

    assert network("8.8.8.8") == network("::ffff:8.8.8.8") == ip_address("8.8.8.8") != network("8.8.8.9")
    assert network("2a00::1") == network("2a00::ffff:0:0:1") != network("2a00:0:0:1::1")
    assert network("fe80::1%2") == network("fe80::1")
    assert [
        client_network(effective_address(ip_address(f"64:ff9b::{address}"))) for address in ("8.8.8.8", "8.8.4.4")
    ] == [ip_address("8.8.8.8"), ip_address("8.8.4.4")]


def test_a_name_server_that_hangs_costs_the_time_limit_and_a_bounded_number_of_threads() -> None:
    hold, lookups = threading.Event(), []

    def hang(name: str) -> list[Address]:
        lookups.append(name)
        hold.wait(120)
        return [ip_address(PUBLIC_4)]

    policy = FetchPolicy(Fetch(resolve_s=0.5, max_at_once=2), hang)
    started = time.monotonic()
    for number in range(4):
        with pytest.raises(UpstreamTimeout):
            policy.check(urls.parse(f"http://host{number}.example/"), Deadline(5))
    assert 2.0 <= time.monotonic() - started < 60
    assert lookups == ["host0.example", "host1.example"]
    hold.set()

    def resolves() -> bool:
        with suppress(UpstreamTimeout):
            return policy.check(urls.parse("http://later.example/"), Deadline(5)).addresses == (ip_address(PUBLIC_4),)
        return False

    wait_until(resolves, 60, "a name is resolved again")


def test_a_programming_error_in_a_resolver_is_raised() -> None:
    def broken(_: str) -> list[Address]:
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        FetchPolicy(Fetch(), broken).check(urls.parse("http://some.example/"), Deadline(5))


def test_a_concurrency_limit_counts_by_key_and_forgets_unused_keys() -> None:
    limit = ConcurrencyLimit()
    with limit.slot("a", "b", limit=1):
        for keys in (("a",), ("b",), ("c", "a")):
            with pytest.raises(Busy) as busy, limit.slot(*keys, limit=1):
                pass
            assert busy.value.retry_after
        with limit.slot("c", limit=1), limit.slot("a", limit=2):
            pass
    with pytest.raises(ZeroDivisionError), limit.slot("a", limit=1):
        _ = 1 / 0
    with limit.slot("a", "b", "c", limit=1):
        pass
    assert not limit._running
