"""Attempts to sign in are limited, also while Redis is away, and one client can create only a limited number of counters."""

import pytest

from shared import settings
from shared.errors import Busy
from tests.support import rate_windows
from web.http.local_counts import LocalCounts
from web.http.rate_limits import QuotaPolicy, RateLimiter
from web.http.sign_in_throttle import SignInThrottle

CLIENT = "192.0.2.1"


@pytest.fixture(name="throttle")
def make_throttle(monkeypatch: pytest.MonkeyPatch) -> SignInThrottle:
    rate_windows.freeze(monkeypatch)
    return SignInThrottle(RateLimiter(settings.Redis(url="redis://127.0.0.1:1/0")))


def attempts_until_refused(throttle: SignInThrottle, name: str, client: str = CLIENT, account: str | None = None) -> int:
    for number in range(1000):
        try:
            throttle.count_sign_in(name, account or name, client)
        except Busy:
            return number
    raise AssertionError("not limited")


def count_counters(throttle: SignInThrottle) -> int:
    return sum(len(counters._storage) for counters in throttle._limiter._local.values() if isinstance(counters._storage, LocalCounts))


def test_a_name_and_a_client_have_ten_attempts_and_others_are_not_affected(throttle: SignInThrottle) -> None:
    assert attempts_until_refused(throttle, "anna") == 10
    with pytest.raises(Busy) as refused:
        throttle.count_sign_in("ANNA", "anna", CLIENT)
    assert 1 <= (refused.value.retry_after or 0) <= 15 * 60
    throttle.count_sign_in("ben", "ben", CLIENT)
    throttle.count_sign_in("anna", "anna", "192.0.2.2")
    assert attempts_until_refused(throttle, "carl", "2001:db8::1") == 10
    assert attempts_until_refused(throttle, "carl", "2001:db8::2") == 0  # the same network


def test_a_success_forgets_the_failures_of_its_name(throttle: SignInThrottle) -> None:
    attempts_until_refused(throttle, "anna")
    throttle.forget_sign_in("anna", "anna", CLIENT)
    assert attempts_until_refused(throttle, "anna") == 10


def test_an_account_has_a_hundred_attempts_by_all_its_names_from_all_clients(throttle: SignInThrottle) -> None:
    for number in range(100):
        throttle.count_sign_in(("anna", "anna@example.org")[number % 2], "anna", f"192.0.2.{number}")
    assert attempts_until_refused(throttle, "anna", "198.51.100.1", "anna") == 0
    assert attempts_until_refused(throttle, "anna@example.org", "198.51.100.1", "anna") == 0


def test_a_success_by_one_name_forgets_the_failures_of_the_account(throttle: SignInThrottle) -> None:
    for number in range(100):
        throttle.count_sign_in("anna", "anna", f"192.0.2.{number}")
    throttle.forget_sign_in("anna@example.org", "anna", CLIENT)
    assert attempts_until_refused(throttle, "anna", "198.51.100.1") == 10


def test_a_client_creates_no_counters_beyond_its_own_limit(throttle: SignInThrottle) -> None:
    for number in range(300):
        throttle.count_sign_in(f"name {number}", f"name {number}", CLIENT)
    counters = count_counters(throttle)
    for number in range(300, 400):
        with pytest.raises(Busy):
            throttle.count_sign_in(f"name {number}", f"name {number}", CLIENT)
    assert count_counters(throttle) == counters


def test_a_flood_of_other_requests_from_many_networks_gives_no_attempt_back(throttle: SignInThrottle) -> None:
    attempts_until_refused(throttle, "anna")
    for number in range(20_050):
        throttle._limiter.hit(QuotaPolicy("address", 600, 60), f"2001:db8:{number:x}::/64")
    assert attempts_until_refused(throttle, "anna") == 0


def test_sign_ups_of_a_client_are_limited(throttle: SignInThrottle) -> None:
    for _ in range(60):
        throttle.count_sign_up(CLIENT)
    with pytest.raises(Busy):
        throttle.count_sign_up(CLIENT)
    throttle.count_sign_up("192.0.2.2")
