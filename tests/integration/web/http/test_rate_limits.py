"""How often one client may start an inspection: counted in a real Redis, for all processes together."""

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
    """Run a Redis for this test alone, which pauses and kills it."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(autouse=True)
def opened() -> Iterator[list[RateLimits]]:
    """Close the rate limits that the test opened."""
    opened_limits: list[RateLimits] = []
    yield opened_limits
    for rates in opened_limits:
        rates.close()


@pytest.fixture
def url(redis_url: str) -> str:
    """Return the address of the shared Redis, emptied."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


def open_limits(opened: list[RateLimits], url: str, limit: int, window_s: int = 3600) -> RateLimits:
    opened.append(RateLimits(settings.Settings(redis=settings.Redis(url=url), inspect=settings.Inspect(per_minute=limit, dreams_per_minute=limit)), window_s))
    return opened[-1]


def until_refused(rates: RateLimits, client: str, kind: str = "inspection") -> tuple[int, Busy]:
    """Start inspections until one is refused; return how many were not, and the error."""
    for count in range(100):
        try:
            rates.hit(kind, client)
        except Busy as caught:
            return count, caught
    raise AssertionError("no call was refused")


def admitted(rates: RateLimits, client: str, kind: str = "inspection") -> int:
    count, _ = until_refused(rates, client, kind)
    return count


def test_two_processes_count_together(opened: list[RateLimits], url: str) -> None:
    first, second = open_limits(opened, url, 5), open_limits(opened, url, 5)
    for rates in (first, second, first, second, first):
        rates.hit("inspection", "192.0.2.1")
    for rates in (first, second):
        with pytest.raises(Busy) as caught:
            rates.hit("inspection", "192.0.2.1")
        assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 3600


def test_clients_and_kinds_are_counted_separately(opened: list[RateLimits], url: str) -> None:
    rates = open_limits(opened, url, 3)
    assert [admitted(rates, client) for client in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1")] == [3] * 4
    assert admitted(rates, "192.0.2.1", "dream") == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [("2001:db8::1", "2001:db8::ffff:1:2:3"), ("2001:db8::1", "2001:DB8:0:0::1"), ("192.0.2.1", "::ffff:192.0.2.1"), ("fe80::1%eth0", "fe80::2"), ("nobody", "")],
)
def test_all_addresses_of_one_network_are_one_client(opened: list[RateLimits], url: str, first: str, second: str) -> None:
    rates = open_limits(opened, url, 3)
    assert (admitted(rates, first), admitted(rates, second)) == (3, 0)


def test_a_client_that_waits_for_retry_after_is_admitted_again(opened: list[RateLimits], url: str) -> None:
    rates = open_limits(opened, url, 4, window_s=2)
    count, busy = until_refused(rates, "192.0.2.1")
    assert count >= 4  # more only if the machine stalled
    for _ in range(3):  # the library returns slightly too little if all calls fall into one millisecond
        assert busy.retry_after in {1, 2}
        time.sleep(busy.retry_after)
        count, busy = until_refused(rates, "192.0.2.1")
        if count:
            return
    raise AssertionError("no call was admitted again")


def test_every_key_expires(opened: list[RateLimits], url: str) -> None:
    rates = open_limits(opened, url, 4, window_s=60)
    admitted(rates, "192.0.2.1")
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter("*"))
        assert keys
        assert all(key.startswith(b"shelfsight:rates:") and 0 < client.ttl(key) <= 120 for key in keys)


def test_a_paused_or_unavailable_redis_is_reported_soon_and_is_used_again_later(opened: list[RateLimits], server: RedisServer) -> None:
    rates = open_limits(opened, server.url, 1000)
    rates.hit("inspection", "192.0.2.1")

    def assert_refused() -> None:
        started_at = time.monotonic()
        for _ in range(10):  # one of them waits for the timeout, the breaker refuses the others
            with pytest.raises(StoreAway) as caught:
                rates.hit("inspection", "192.0.2.1")
            assert (caught.value.status, caught.value.code, bool(caught.value.retry_after)) == (503, "redis_unavailable", True)
        assert time.monotonic() - started_at < 30

    def wait_until_admitted() -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                return rates.hit("inspection", "192.0.2.1")
            except StoreAway:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    server.pause()
    try:
        assert_refused()
    finally:
        server.resume()
    wait_until_admitted()
    server.kill()
    assert_refused()
    server.start()  # empty: the library's scripts are missing, too
    wait_until_admitted()


def test_a_redis_that_is_full_counts_as_unavailable(opened: list[RateLimits], server: RedisServer) -> None:
    rates = open_limits(opened, server.url, 1000)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreAway):
            rates.hit("inspection", "192.0.2.1")
