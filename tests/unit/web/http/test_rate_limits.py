"""How a quota is computed from the counts of two windows, and how a process counts for itself without Redis."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import settings
from tests.support import rate_windows
from web.http import rate_limits
from web.http.rate_limits import QuotaPolicy, RateExceeded, RateLimiter, WindowCounts

WINDOW_S = 60
POLICY = QuotaPolicy("test", 10, WINDOW_S)
COUNTS = st.builds(WindowCounts, previous=st.integers(0, 10), current=st.integers(0, 10), left_s=st.integers(1, 60_000).map(lambda ms: ms / 1000))


@pytest.fixture
def limiter(monkeypatch: pytest.MonkeyPatch) -> Iterator[RateLimiter]:
    """Return a limiter whose Redis is unreachable."""
    rate_windows.freeze(monkeypatch)
    limiter = RateLimiter(settings.Redis(url="redis://127.0.0.1:1/0"))
    yield limiter
    limiter.close()


def later(counts: WindowCounts, seconds: float) -> WindowCounts:
    """Return the same counts some seconds later, without further requests."""
    if seconds < counts.left_s:
        return WindowCounts(counts.previous, counts.current, counts.left_s - seconds)
    return WindowCounts(counts.current, 0, WINDOW_S - (seconds - counts.left_s))


@given(COUNTS)
def test_the_usage_is_between_the_current_count_and_both_counts(counts: WindowCounts) -> None:
    assert counts.current <= counts.used(POLICY) <= counts.current + counts.previous


@given(COUNTS)
def test_whoever_waits_is_admitted_and_does_not_wait_longer_than_the_window(counts: WindowCounts) -> None:
    wait_s = counts.wait_s(POLICY)
    assert 0 < wait_s <= counts.left_s + 0.001
    assert later(counts, wait_s).used(POLICY) < POLICY.quota


def test_the_weight_of_the_previous_window_decreases() -> None:
    assert [WindowCounts(10, 2, left_s).used(POLICY) for left_s in (60, 45, 30, 15, 0)] == [12, 9, 7, 4, 2]


@pytest.mark.parametrize(
    ("counts", "wait_s"),
    [
        (WindowCounts(0, 10, 20), 20),  # the current window alone has used up the quota
        (WindowCounts(10, 0, 60), 0),  # the previous window is about to lose weight
        (WindowCounts(10, 4, 40), 4),  # it must lose weight until one more request fits in
        (WindowCounts(10, 10, 10), 10),
    ],
)
def test_the_time_to_wait(counts: WindowCounts, wait_s: float) -> None:
    assert counts.wait_s(POLICY) == pytest.approx(wait_s, abs=0.002)


def test_a_new_window_gives_back_what_the_weight_of_the_previous_one_leaves(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    def admitted_at(second: float) -> int:
        rate_windows.freeze(monkeypatch, 1_800_000_000 + second)
        return [limiter.hit(POLICY, "anna").is_admitted for _ in range(12)].count(True)

    assert [admitted_at(second) for second in (59, 60, 61, 75, 90, 150, 240)] == [10, 0, 1, 2, 2, 8, 10]


def test_each_request_uses_one_of_the_quota_and_those_beyond_it_are_refused(limiter: RateLimiter) -> None:
    usages = [limiter.hit(POLICY, "anna") for _ in range(12)]
    assert [(usage.is_admitted, usage.remaining) for usage in usages] == [(True, left) for left in reversed(range(10))] + [(False, 0)] * 2
    assert all(1 <= usage.reset_s <= WINDOW_S and not usage.is_shared for usage in usages)


def test_subjects_and_policies_have_their_own_counters(limiter: RateLimiter) -> None:
    for _ in range(11):
        limiter.hit(POLICY, "anna")
    assert not limiter.hit(POLICY, "anna").is_admitted
    assert limiter.hit(POLICY, "ben").is_admitted
    assert limiter.hit(QuotaPolicy("other", 10, WINDOW_S), "anna").is_admitted


@pytest.mark.parametrize(
    ("window_s", "wait"),
    [(1, "1 second"), (60, "60 seconds"), (90, "90 seconds"), (120, "2 minutes"), (900, "15 minutes")],
)
def test_a_refusal_says_when_to_retry(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch, window_s: int, wait: str) -> None:
    rate_windows.freeze(monkeypatch, 1_800_000_000 + 0.002)  # the beginning of a window of each of these lengths
    policy = QuotaPolicy("test", 1, window_s)
    limiter.require(policy, "anna", reason="Too many")
    with pytest.raises(RateExceeded) as refused:
        limiter.require(policy, "anna", reason="Too many")
    error = refused.value
    assert (error.status, error.code, error.detail, error.usage.remaining) == (429, "too_many_requests", f"Too many; retry in {wait}.", 0)
    assert error.retry_after == error.usage.reset_s


def test_room_is_required_without_counting(limiter: RateLimiter) -> None:
    for left in reversed(range(10)):
        for _ in range(3):
            limiter.require_room(POLICY, "anna", reason="Too many.")
        assert limiter.hit(POLICY, "anna").remaining == left
    with pytest.raises(RateExceeded) as refused:
        limiter.require_room(POLICY, "anna", reason="Too many.")
    again = limiter.hit(POLICY, "anna")
    assert (again.is_admitted, refused.value.usage) == (False, again)


def test_forgotten_requests_of_both_windows_do_not_count(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    for second in (59, 60):
        rate_windows.freeze(monkeypatch, 1_800_000_000 + second)
        for _ in range(10):
            limiter.hit(POLICY, "anna")
    limiter.forget(POLICY, "anna")
    assert limiter.hit(POLICY, "anna").remaining == 9


def test_who_fills_the_counters_of_one_policy_removes_none_of_another(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MAX_LOCAL_COUNTERS", 5)
    other = QuotaPolicy("other", 10, WINDOW_S)
    for _ in range(10):
        limiter.hit(other, "anna")
    assert all(limiter.hit(POLICY, f"subject {number}").is_admitted for number in range(50))
    assert not limiter.hit(other, "anna").is_admitted


def test_the_counters_that_were_used_last_are_kept(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MAX_LOCAL_COUNTERS", 5)
    for number in range(50):
        limiter.hit(POLICY, "anna")
        limiter.hit(POLICY, f"subject {number}")
    assert not limiter.hit(POLICY, "anna").is_admitted
