"""Attempts to sign in are limited, also while Redis is away, and one client can create only a limited number of counters."""

import pytest

from shared import settings
from shared.errors import Busy
from web.http.sign_in_throttle import SignInThrottle

CLIENT = "192.0.2.1"


@pytest.fixture(name="throttle")
def make_throttle() -> SignInThrottle:
    return SignInThrottle(settings.Redis(url="redis://127.0.0.1:1/0"))


def attempts_until_refused(throttle: SignInThrottle, name: str, client: str = CLIENT) -> int:
    for number in range(1000):
        try:
            throttle.count_sign_in(name, client)
        except Busy:
            return number
    raise AssertionError("not limited")


def test_a_name_and_a_client_have_ten_attempts_and_others_are_not_affected(throttle: SignInThrottle) -> None:
    assert attempts_until_refused(throttle, "anna") == 10
    with pytest.raises(Busy) as refused:
        throttle.count_sign_in("ANNA", CLIENT)
    assert 1 <= (refused.value.retry_after or 0) <= 15 * 60
    throttle.count_sign_in("ben", CLIENT)
    throttle.count_sign_in("anna", "192.0.2.2")
    assert attempts_until_refused(throttle, "carl", "2001:db8::1") == 10
    assert attempts_until_refused(throttle, "carl", "2001:db8::2") == 0  # the same network


def test_a_success_forgets_the_failures_of_its_name(throttle: SignInThrottle) -> None:
    attempts_until_refused(throttle, "anna")
    throttle.forget_sign_in("anna", CLIENT)
    assert attempts_until_refused(throttle, "anna") == 10


def test_a_name_has_a_hundred_attempts_from_all_clients(throttle: SignInThrottle) -> None:
    for number in range(100):
        throttle.count_sign_in("anna", f"192.0.2.{number}")
    assert attempts_until_refused(throttle, "anna", "198.51.100.1") == 0


def test_a_client_creates_no_counters_beyond_its_own_limit(throttle: SignInThrottle) -> None:
    for number in range(300):
        throttle.count_sign_in(f"name {number}", CLIENT)
    counters = len(throttle._local.storage.storage)  # type: ignore[attr-defined]  # the storage of this limiter is a MemoryStorage
    for number in range(300, 400):
        with pytest.raises(Busy):
            throttle.count_sign_in(f"name {number}", CLIENT)
    assert len(throttle._local.storage.storage) == counters  # type: ignore[attr-defined]


def test_sign_ups_of_a_client_are_limited(throttle: SignInThrottle) -> None:
    for _ in range(60):
        throttle.count_sign_up(CLIENT)
    with pytest.raises(Busy):
        throttle.count_sign_up(CLIENT)
    throttle.count_sign_up("192.0.2.2")
