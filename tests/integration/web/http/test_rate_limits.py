"""Requests are counted in a real Redis for all processes together, and by each process for itself while Redis does not respond."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from scripts.local.temporary_servers import RedisServer
from shared import settings
from tests.support import rate_windows
from tests.support.service_stack import wait_until
from web.http import rate_limits
from web.http.rate_limits import QuotaPolicy, RateExceeded, RateLimiter, Usage, WindowCounts

POLICY = QuotaPolicy("test", 5, 3600)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a Redis for this test alone, which pauses and kills it."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RateLimiter]]:
    """Close the limiters that the test opened."""
    rate_windows.freeze(monkeypatch)
    limiters: list[RateLimiter] = []
    yield limiters
    for limiter in limiters:
        limiter.close()


@pytest.fixture
def url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of the shared Redis, emptied. It counts as unavailable only if it does not respond for long."""
    monkeypatch.setattr(rate_limits, "_TIMEOUT_S", 30.0)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


def open_limiter(opened: list[RateLimiter], url: str) -> RateLimiter:
    opened.append(RateLimiter(settings.Redis(url=url)))
    return opened[-1]


def until_refused(limiter: RateLimiter, policy: QuotaPolicy, subject: str) -> tuple[int, Usage]:
    """Make requests until one is refused; return how many were not, and the usage of the refused one."""
    for count in range(100):
        usage = limiter.hit(policy, subject)
        if not usage.is_admitted:
            return count, usage
    raise AssertionError("no request was refused")


def test_two_processes_count_together(opened: list[RateLimiter], url: str) -> None:
    first, second = open_limiter(opened, url), open_limiter(opened, url)
    usages = [limiter.hit(POLICY, "anna") for limiter in (first, second, first, second, first)]
    assert [(usage.is_admitted, usage.is_shared, usage.remaining) for usage in usages] == [(True, True, left) for left in (4, 3, 2, 1, 0)]
    assert all(1 <= usage.reset_s <= 3600 for usage in usages)
    for limiter in (first, second):
        refused = limiter.hit(POLICY, "anna")
        assert (refused.is_admitted, refused.remaining) == (False, 0)
        assert 1 <= refused.reset_s <= 3600
    assert first.hit(POLICY, "ben").is_admitted


def test_room_is_required_in_all_processes_without_counting(opened: list[RateLimiter], url: str) -> None:
    first, second = open_limiter(opened, url), open_limiter(opened, url)
    for _ in range(9):
        second.require_room(POLICY, "anna", reason="Too many.")
    assert until_refused(first, POLICY, "anna")[0] == 5
    with pytest.raises(RateExceeded) as refused:
        second.require_room(POLICY, "anna", reason="Too many.")
    assert refused.value.usage.is_shared


def test_forgotten_requests_do_not_count_in_any_process(opened: list[RateLimiter], url: str) -> None:
    first, second = open_limiter(opened, url), open_limiter(opened, url)
    until_refused(first, POLICY, "anna")
    second.forget(POLICY, "anna")
    assert first.hit(POLICY, "anna").remaining == 4


def test_whoever_waits_as_long_as_the_refusal_says_is_admitted_again_in_any_process(opened: list[RateLimiter], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limiters = [open_limiter(opened, url) for _ in range(2)]
    now = 1_800_000_007.0
    for number in range(8):
        rate_windows.freeze(monkeypatch, now)
        count, refused = until_refused(limiters[number % 2], QuotaPolicy("test", 7, 60), "anna")
        assert count >= 1
        assert 1 <= refused.reset_s <= 60
        now += refused.reset_s


def test_every_key_expires(opened: list[RateLimiter], url: str) -> None:
    until_refused(open_limiter(opened, url), QuotaPolicy("test", 4, 60), "anna")
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter("*"))
        assert keys
        assert all(key.startswith(b"shelfsight:rates:") and 0 < client.ttl(key) <= 120 for key in keys)


def test_a_frozen_or_killed_redis_lets_each_process_count_for_itself_until_it_is_back(opened: list[RateLimiter], server: RedisServer) -> None:
    limiters = [open_limiter(opened, server.url) for _ in range(2)]
    wait_until(lambda: limiters[0].hit(POLICY, "first").is_shared, 60, "Redis counts")

    def assert_counted_locally(subject: str) -> None:
        for limiter in limiters:
            usages = [limiter.hit(POLICY, subject) for _ in range(7)]
            assert [usage.is_admitted for usage in usages] == [True] * 5 + [False] * 2
            assert not any(usage.is_shared for usage in usages)

    def wait_until_shared() -> None:
        for limiter in limiters:
            wait_until(lambda limiter=limiter: limiter.hit(POLICY, str(time.monotonic())).is_shared, 60, "Redis counts again")  # type: ignore[misc]  # mypy cannot infer the type of a lambda with a default

    server.pause()
    try:
        assert_counted_locally("frozen")
    finally:
        server.resume()
    wait_until_shared()
    server.kill()
    assert_counted_locally("killed")
    server.start()  # empty: the library's scripts are missing, too
    wait_until_shared()


def test_only_one_call_in_a_pause_waits_for_a_frozen_redis(opened: list[RateLimiter], server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = open_limiter(opened, server.url)
    calls: list[str] = []
    hit = limiter._shared.hit

    def count_call(policy: QuotaPolicy, key: str) -> tuple[bool, WindowCounts]:
        calls.append(key)
        return hit(policy, key)

    monkeypatch.setattr(limiter._shared, "hit", count_call)
    server.pause()
    try:
        for _ in range(200):
            limiter.hit(POLICY, "anna")
    finally:
        server.resume()
    assert 1 <= len(calls) <= 20  # more than one only if the machine is so busy that 200 requests take longer than a pause


def test_a_redis_that_is_full_counts_as_unavailable(opened: list[RateLimiter], server: RedisServer) -> None:
    limiter = open_limiter(opened, server.url)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        usage = limiter.hit(POLICY, "anna")
    assert (usage.is_admitted, usage.is_shared) == (True, False)
