"""What may be fetched passes, in one spelling; lists and permissions do what they say, and no more."""

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
from shared.fetch.addresses import Address, is_public, led_to, whose
from shared.fetch.concurrency import Gate
from shared.fetch.deadline import Clock
from shared.fetch.policy import Guard, Target
from shared.settings import Fetch
from tests.support.service_stack import wait_until
from tests.unit.shared.fetch.hostile_urls import PUBLIC_4, PUBLIC_6, resolver


def check(url: str, **rules: Any) -> Target:
    return Guard(Fetch(**rules), resolver).check(urls.parse(url), Clock(5))


def code(url: str, **rules: Any) -> str:
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


@pytest.mark.parametrize(("given_url", "asked"), GOOD.items(), ids=lambda value: ascii(value)[:50])
def test_a_good_url_passes_in_one_spelling(given_url: str, asked: str) -> None:
    target = check(given_url)
    assert str(target.url) == asked
    assert target.addresses
    assert all(is_public(address) for address in target.addresses)


@settings(deadline=None)
@given(url=st.sampled_from(sorted(GOOD.values())))
def test_the_one_spelling_is_read_as_itself(url: str) -> None:
    assert str(urls.parse(url)) == url


NUMBERS = st.integers(0, 2**33).flatmap(lambda number: st.sampled_from([str(number), hex(number), f"0{number:o}", str(number % 256), f"{number}8"]))


@settings(deadline=None)
@given(text=st.lists(NUMBERS, min_size=1, max_size=5).map(".".join))
def test_numbers_are_the_address_that_the_c_library_makes_of_them(text: str) -> None:
    try:
        meant = socket.inet_aton(text)
    except OSError:
        with pytest.raises(ValueError):  # noqa: PT011 -- whatever its sentence
            urls.host(text)
    else:
        assert urls.host(text) == IPv4Address(meant)


def test_one_address_of_each_family_is_kept_in_their_order() -> None:
    def resolve(_: str) -> list[Address]:
        return [ip_address(one) for one in ("2a00::2", "8.8.8.8", "2a00::1", "9.9.9.9")]

    target = Guard(Fetch(), resolve).check(urls.parse("http://some.example/"), Clock(5))
    assert target.addresses == (IPv6Address("2a00::2"), IPv4Address("8.8.8.8"))


def test_a_blocked_domain_is_blocked_with_all_below_it_and_nothing_beside_it() -> None:
    rules = {"blocked_domains": ["BÜCHER.example", "public.example."]}
    for host in ("public.example", "PUBLIC.example.", "a.b.public.example", "bücher.example", "xn--bcher-kva.example", "ｐublic.example"):  # noqa: RUF001
        assert code(f"http://{host}/", **rules) == "blocked_host"
    assert code("http://notpublic.example/", **rules) == "unresolvable_host"
    assert code("http://public.example.nowhere/", **rules) == "unresolvable_host"
    assert check("http://under_score.example/", **rules)
    assert code("http://public.example/", **rules, allowed_domains=["public.example"], permitted_hosts=["public.example"]) == "blocked_host"


def test_with_allowed_domains_there_is_nothing_else() -> None:
    rules = {"allowed_domains": ["public.example"]}
    assert check("http://public.example/", **rules)
    assert code("http://www.public.example/", **rules) == "unresolvable_host"
    for host in ("under_score.example", "notpublic.example", "example", PUBLIC_4, f"[{PUBLIC_6}]"):
        assert code(f"http://{host}/", **rules) == "blocked_host"
    assert code("http://private.example/", allowed_domains=["private.example"]) == "blocked_address"


def test_a_permitted_host_may_lead_anywhere_with_any_port_and_its_neighbours_may_not() -> None:
    rules = {"permitted_hosts": ["private.example", "loopback.example"]}
    assert check("http://PRIVATE.example.:8080/", **rules).addresses == (ip_address("192.168.1.1"),)
    assert check("http://private.example/", **rules, allowed_domains=["other.example"])
    assert code("http://192.168.1.1:8080/", **rules) == "blocked_address"
    assert code("http://sub.private.example/", **rules) == "unresolvable_host"
    assert code("http://metadata.example/", **rules) == "blocked_address"
    assert code("http://public.example:8080/", **rules) == "bad_url"


def test_a_permitted_network_opens_its_own_addresses_alone() -> None:
    rules = {"permitted_networks": ["192.168.0.0/16", "fd00::/8"]}
    assert check("http://192.168.1.1:8080/", **rules)
    assert check("http://3232235777:8080/", **rules)
    assert check("http://[::ffff:192.168.1.1]:1/", **rules).addresses == (ip_address("192.168.1.1"),)
    assert check("http://[fd00::1]:65535/", **rules)
    assert check("http://private.example:8080/", **rules)
    for host in ("127.0.0.1", "192.167.255.255.loopback.example", "metadata.example", "[::1]", "10.0.0.1"):
        assert code(f"http://{host}/", **rules) in {"blocked_address", "unresolvable_host"}
    assert code("http://public.example:8080/", **rules) == "bad_url"
    assert code("http://first-public.example/", **rules) == "blocked_address"


def test_other_ports_need_every_address_to_be_permitted() -> None:
    rules = {"permitted_networks": ["10.0.0.0/8"]}
    assert check("http://first-public.example/", **rules)
    assert code("http://first-public.example:8080/", **rules) == "bad_url"


def test_public_addresses_of_ones_own_may_be_blocked() -> None:
    rules = {"blocked_networks": [f"{PUBLIC_4}/24".replace(".14/", ".0/")]}
    for host in ("public.example", PUBLIC_4, f"[::ffff:{PUBLIC_4}]", f"[64:ff9b::{PUBLIC_4}]"):
        assert code(f"http://{host}/", **rules) == "blocked_address"
    assert check("http://8.8.8.8/", **rules)


def test_nat64_is_blocked_by_its_own_prefix_too() -> None:
    rules = {"blocked_networks": ["64:ff9b::/96"]}
    assert code("http://[64:ff9b::8.8.8.8]/", **rules) == "blocked_address"
    assert check("http://8.8.8.8/", **rules)


def test_what_one_party_has_counts_as_one() -> None:
    def party(address: str) -> Any:
        return whose(ip_address(address))

    assert party("8.8.8.8") == party("::ffff:8.8.8.8") == ip_address("8.8.8.8") != party("8.8.8.9")
    assert party("2a00::1") == party("2a00::ffff:0:0:1") != party("2a00:0:0:1::1")
    assert party("fe80::1%2") == party("fe80::1")
    assert [whose(led_to(ip_address(f"64:ff9b::{address}"))) for address in ("8.8.8.8", "8.8.4.4")] == [ip_address("8.8.8.8"), ip_address("8.8.4.4")]


def test_a_name_server_that_hangs_costs_the_time_limit_and_a_bounded_number_of_threads() -> None:
    hold, asked = threading.Event(), []

    def resolve(name: str) -> list[Address]:
        asked.append(name)
        hold.wait(120)
        return [ip_address(PUBLIC_4)]

    guard = Guard(Fetch(resolve_s=0.5, max_at_once=2), resolve)
    began = time.monotonic()
    for place in range(4):
        with pytest.raises(UpstreamTimeout):
            guard.check(urls.parse(f"http://host{place}.example/"), Clock(5))
    assert 2.0 <= time.monotonic() - began < 60
    assert asked == ["host0.example", "host1.example"]
    hold.set()

    def resolves() -> bool:
        with suppress(UpstreamTimeout):
            return guard.check(urls.parse("http://later.example/"), Clock(5)).addresses == (ip_address(PUBLIC_4),)
        return False

    wait_until(resolves, 60, "a name is resolved again")


def test_a_fault_of_a_resolver_is_not_taken_for_an_answer() -> None:
    def resolve(_: str) -> list[Address]:
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        Guard(Fetch(), resolve).check(urls.parse("http://some.example/"), Clock(5))


def test_a_gate_counts_by_key_and_forgets() -> None:
    gate = Gate()
    with gate.enter("a", "b", at_most=1):
        for keys in (("a",), ("b",), ("c", "a")):
            with pytest.raises(Busy) as busy, gate.enter(*keys, at_most=1):
                pass
            assert busy.value.retry_after
        with gate.enter("c", at_most=1), gate.enter("a", at_most=2):
            pass
    with pytest.raises(ZeroDivisionError), gate.enter("a", at_most=1):
        _ = 1 / 0
    with gate.enter("a", "b", "c", at_most=1):
        pass
    assert not gate._inside
