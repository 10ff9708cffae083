"""Values that are computed once for many requests, when they are used or in the background."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from web.cached_value import CachedValue, RefreshedValue


def test_a_value_is_computed_again_only_when_it_is_too_old() -> None:
    numbers = iter(range(10))
    cached = CachedValue(60, lambda: next(numbers))
    assert [cached.get(), cached.get()] == [0, 0]
    always_old = CachedValue(0, lambda: next(numbers))
    assert [always_old.get(), always_old.get()] == [1, 2]


def test_a_value_that_soon_changes_is_computed_again_after_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, now = iter([0, 1, 2, 30, 40]), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cached = CachedValue(1.0, lambda: next(numbers), lasts=lambda number: number >= 2)
    seen = []
    for after in (0, 0.09, 0.11, 0.11, 0.5, 0.6):
        now += after
        seen.append(cached.get())
    assert seen == [0, 0, 1, 2, 2, 30]


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_ask_at_the_same_time_share_one_computation_and_its_result(*, fails: bool) -> None:
    started, may_end = threading.Event(), threading.Event()
    calls: list[int] = []

    def compute() -> str:
        calls.append(1)
        started.set()
        assert may_end.wait(60)
        if fails:
            raise ValueError("away")
        return "value"

    cached = CachedValue(60, compute)

    def get() -> str:
        try:
            return cached.get()
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        outcomes = [threads.submit(get) for _ in range(8)]
        assert started.wait(60)
        may_end.set()
        assert {outcome.result(60) for outcome in outcomes} == {"away" if fails else "value"}
    assert len(calls) == 1


def test_nothing_is_measured_before_the_first_use() -> None:
    calls: list[int] = []
    measured = RefreshedValue(0, lambda: calls.append(1))
    time.sleep(0.01)
    assert calls == []
    measured.close()


def test_the_first_use_waits_for_the_measurement_and_later_ones_never_wait() -> None:
    may_end = threading.Event()
    numbers = iter(range(1000))

    def measure() -> int:
        number = next(numbers)
        if number:
            assert may_end.wait(60)
        return number

    measured = RefreshedValue(0.001, measure)
    assert measured.get() == 0
    while measured.age_s() < 0.05:  # meanwhile, the second measurement is blocked
        assert measured.get() == 0
    may_end.set()
    until = time.monotonic() + 60
    while measured.get() == 0:
        assert time.monotonic() < until
    measured.close()


def test_after_a_failure_the_previous_value_remains_and_its_age_grows() -> None:
    failures = threading.Semaphore(0)
    results = iter(["value"])

    def measure() -> str:
        try:
            return next(results)
        except StopIteration:
            failures.release()
            raise ValueError("away") from None

    measured = RefreshedValue(0.001, measure)
    assert measured.get() == "value"
    for _ in range(3):
        assert failures.acquire(timeout=60)
    age_s = measured.age_s()
    assert measured.get() == "value"
    assert failures.acquire(timeout=60)
    assert measured.age_s() > age_s
    measured.close()


def test_without_any_value_the_failure_is_raised_until_a_measurement_succeeds() -> None:
    away = threading.Event()
    away.set()

    def measure() -> str:
        if away.is_set():
            raise ValueError("away")
        return "value"

    measured = RefreshedValue(0.001, measure)
    for _ in range(2):
        with pytest.raises(ValueError, match="away"):
            measured.get()
    away.clear()
    until = time.monotonic() + 60
    while True:
        try:
            assert measured.get() == "value"
            break
        except ValueError:
            assert time.monotonic() < until
            time.sleep(0.001)
    measured.close()
