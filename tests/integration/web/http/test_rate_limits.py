"""How often one client may begin something: counted in a real Redis, for all processes together."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from scripts.local.temporary_servers import RedisServer
from shared import settings
from shared.errors import Busy, StoreAway
from web.http.rate_limits import RateLimits

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a Redis that is this test's alone: it is frozen and ended."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(autouse=True)
def opened() -> Iterator[list[RateLimits]]:
    """Close what the test made."""
    made: list[RateLimits] = []
    yield made
    for rates in made:
        rates.close()


@pytest.fixture
def url(redis_url: str) -> str:
    """Give the shared Redis, empty."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


def limited(opened: list[RateLimits], url: str, most: int, window_s: int = 3600) -> RateLimits:
    opened.append(RateLimits(settings.Settings(redis=settings.Redis(url=url), inspect=settings.Inspect(per_minute=most, dreams_per_minute=most)), window_s))
    return opened[-1]


def until_refused(rates: RateLimits, client: str, kind: str = "inspection") -> tuple[int, Busy]:
    """Begin something until it is refused; count how often it was not."""
    for count in range(100):
        try:
            rates.hit(kind, client)
        except Busy as busy:
            return count, busy
    raise AssertionError("nothing is ever refused")


def taken(rates: RateLimits, client: str, kind: str = "inspection") -> int:
    count, _ = until_refused(rates, client, kind)
    return count


def test_two_processes_count_together(opened: list[RateLimits], url: str) -> None:
    one, other = limited(opened, url, 5), limited(opened, url, 5)
    for rates in (one, other, one, other, one):
        rates.hit("inspection", "192.0.2.1")
    for rates in (one, other):
        with pytest.raises(Busy) as busy:
            rates.hit("inspection", "192.0.2.1")
        assert (busy.value.status, busy.value.code) == (429, "too_many_requests")
        assert busy.value.retry_after is not None
        assert 1 <= busy.value.retry_after <= 3600


def test_clients_and_kinds_are_apart(opened: list[RateLimits], url: str) -> None:
    rates = limited(opened, url, 3)
    assert [taken(rates, client) for client in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1")] == [3] * 4
    assert taken(rates, "192.0.2.1", "dream") == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [("2001:db8::1", "2001:db8::ffff:1:2:3"), ("2001:db8::1", "2001:DB8:0:0::1"), ("192.0.2.1", "::ffff:192.0.2.1"), ("fe80::1%eth0", "fe80::2"), ("nobody", "")],
)
def test_what_one_party_has_is_one_client(opened: list[RateLimits], url: str, first: str, second: str) -> None:
    rates = limited(opened, url, 3)
    assert (taken(rates, first), taken(rates, second)) == (3, 0)


def test_who_waits_as_told_is_let_through_again(opened: list[RateLimits], url: str) -> None:
    rates = limited(opened, url, 4, window_s=2)
    count, busy = until_refused(rates, "192.0.2.1")
    assert count >= 4  # more only where the machine stood still for a while
    for _ in range(3):  # the library says a moment too little where all of it comes in one millisecond
        assert busy.retry_after in {1, 2}
        time.sleep(busy.retry_after)
        count, busy = until_refused(rates, "192.0.2.1")
        if count:
            return
    raise AssertionError("nothing is let through any more")


def test_nothing_is_kept_for_good(opened: list[RateLimits], url: str) -> None:
    rates = limited(opened, url, 4, window_s=60)
    taken(rates, "192.0.2.1")
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter("*"))
        assert keys
        assert all(key.startswith(b"shelfsight:rates:") and 0 < client.ttl(key) <= 120 for key in keys)


def test_a_redis_that_is_frozen_or_away_is_said_soon_and_comes_back(opened: list[RateLimits], server: RedisServer) -> None:
    rates = limited(opened, server.url, 1000)
    rates.hit("inspection", "192.0.2.1")

    def refused() -> None:
        began = time.monotonic()
        for _ in range(10):  # one of them waits, the others need not
            with pytest.raises(StoreAway) as away:
                rates.hit("inspection", "192.0.2.1")
            assert (away.value.status, away.value.code, bool(away.value.retry_after)) == (503, "redis_unavailable", True)
        assert time.monotonic() - began < 30

    def lets_through() -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                return rates.hit("inspection", "192.0.2.1")
            except StoreAway:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    server.pause()
    try:
        refused()
    finally:
        server.resume()
    lets_through()
    server.kill()
    refused()
    server.start()  # empty: the library's scripts are gone, too
    lets_through()


def test_a_redis_that_takes_nothing_more_is_away_too(opened: list[RateLimits], server: RedisServer) -> None:
    rates = limited(opened, server.url, 1000)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreAway):
            rates.hit("inspection", "192.0.2.1")
