"""Finished work is counted for the last two minutes, and for the last busy seconds."""

from worker.runtime.finished_work import KEEP_S, MIN_BUSY_S, WINDOW_S, FinishedWork


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_was_finished_since_the_start_is_counted_with_the_time_that_it_took() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    clock.now += 30
    finished.add(4)
    finished.add(0)
    finished.add()
    assert finished.read() == (5, 30)
    assert finished.read_busy() == (5, 0)


def test_older_work_is_forgotten_and_the_window_ends_at_its_length() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    for _ in range(40):
        finished.add(2)
        clock.now += 6
    count, seconds = finished.read()
    assert seconds == WINDOW_S
    assert count == 2 * (WINDOW_S / 6 - 1)
    clock.now += WINDOW_S
    assert finished.read() == (0, WINDOW_S)


def work(finished: FinishedWork, clock: Clock, seconds: float, count: int) -> None:
    """Be busy for some seconds, and finish ``count`` at their end."""
    finished.set_busy(True)
    clock.now += seconds
    finished.add(count)
    finished.set_busy(False)


def test_the_busy_seconds_are_those_in_which_work_is_held() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    finished.set_busy(True)
    clock.now += 2
    assert finished.read_busy() == (0, 2)
    work(finished, clock, 1, 6)
    clock.now += 50
    assert finished.read_busy() == (6, 3)
    work(finished, clock, 5, 10)
    assert finished.read_busy() == (16, 8)
    assert finished.read() == (16, 58)


def test_the_time_of_what_is_not_finished_counts_when_it_is_longer_than_that_of_what_is() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    work(finished, clock, 30, 1)
    finished.set_busy(True)
    for seconds, busy_s in ((29, 30), (1, 30), (20, 50)):
        clock.now += seconds
        finished.set_busy(True)
        assert finished.read_busy() == (1, busy_s)
    finished.add()
    assert finished.read_busy() == (2, 80)


def test_the_last_busy_seconds_are_known_for_an_hour_without_work() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    work(finished, clock, 4, 8)
    clock.now += KEEP_S - 10
    assert finished.read_busy() == (8, 4)
    assert finished.read() == (0, WINDOW_S)
    clock.now += 10
    assert finished.read_busy() == (0, 0)


def test_of_much_work_the_latest_busy_seconds_are_counted() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    for per_second in (100, 3):
        for _ in range(60):
            work(finished, clock, 1, per_second)
    count, busy_s = finished.read_busy()
    assert 2.5 <= count / busy_s <= 3.5
    assert MIN_BUSY_S <= busy_s < MIN_BUSY_S + 10


def test_of_long_jobs_several_are_counted() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    for _ in range(3):
        work(finished, clock, 200, 1)
        clock.now += 300
    assert finished.read_busy() == (3, 600)


def test_the_memory_does_not_grow_with_the_number_of_calls() -> None:
    clock = Clock()
    finished = FinishedWork(clock)
    finished.set_busy(True)
    for _ in range(50_000):
        finished.add()
        clock.now += 0.1
    assert len(finished._buckets) <= KEEP_S / 5
