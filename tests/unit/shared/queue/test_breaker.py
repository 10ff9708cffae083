"""The breaker admits all calls while they succeed, and after a failure one call a second until one succeeds."""

import pytest

from shared.queue import breaker
from shared.queue.breaker import PAUSE_S, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(breaker, "time", clock)
    return clock


def test_all_calls_are_admitted_until_one_fails(clock: Clock) -> None:
    tested = Breaker()
    assert all(tested.admits() for _ in range(3))
    tested.trip()
    clock.now += PAUSE_S - 0.01
    assert not any(tested.admits() for _ in range(3))


def test_after_a_failure_one_call_is_admitted_in_each_pause(clock: Clock) -> None:
    tested = Breaker()
    tested.trip()
    for _ in range(3):
        clock.now += PAUSE_S
        assert [tested.admits() for _ in range(3)] == [True, False, False]


def test_a_success_closes_the_breaker(clock: Clock) -> None:
    tested = Breaker()
    tested.trip()
    clock.now += PAUSE_S
    assert tested.admits()
    tested.reset()
    assert all(tested.admits() for _ in range(3))


def test_a_failure_of_the_admitted_call_starts_another_pause(clock: Clock) -> None:
    tested = Breaker()
    tested.trip()
    clock.now += PAUSE_S
    assert tested.admits()
    clock.now += PAUSE_S / 2
    tested.trip()
    clock.now += PAUSE_S / 2
    assert not tested.admits()
    clock.now += PAUSE_S / 2
    assert tested.admits()
