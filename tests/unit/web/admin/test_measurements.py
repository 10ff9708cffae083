"""When a queue will be done is only told if it is known, and it is true also after a time without work."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest

from shared.queue import heartbeats
from shared.queue.heartbeats import Worker
from shared.queues import IMAGES, INSPECTIONS, JOBS, WorkQueue
from web.admin.measurements import Measured
from worker.runtime.finished_work import FinishedWork


@pytest.mark.parametrize(
    ("waiting", "running", "workers", "rate", "is_paused", "eta_s"),
    [
        (0, 0, 0, None, False, 0),
        (0, 5, 1, 10.0, True, 0),
        (10, 2, 1, 60.0, False, 12),
        (10, 0, 2, 7.0, False, 86),
        (1, 0, 3, 30.0, False, 6),
        (10, 0, 1, 60.0, True, None),
        (10, 0, 0, 60.0, False, None),
        (10, 0, 1, 0.0, False, None),
        (10, 0, 1, None, False, None),
    ],
)
def test_the_time_until_a_queue_is_done(
    *, waiting: int, running: int, workers: int, rate: float | None, is_paused: bool, eta_s: int | None
) -> None:
    assert Measured(waiting, running, 1.0, workers, 0.5, rate).eta_s(is_paused=is_paused) == eta_s


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Kind:
    """How the workers of a queue work: ``workers`` processes with ``threads`` each, which need ``seconds`` for a group of ``size``."""

    queue: WorkQueue
    workers: int
    threads: int
    size: int
    seconds: float


class Service:
    """A queue and its workers, with simulated clocks. The workers send a heartbeat every three seconds."""

    def __init__(self, kind: Kind) -> None:
        self.clock, self._kind, self.waiting = Clock(), kind, 0
        self._finished = [FinishedWork(self.clock) for _ in range(kind.workers)]
        self._held: list[list[tuple[float, int]]] = [[] for _ in range(kind.workers)]
        self._sent: list[tuple[tuple[int, float], tuple[int, float]]] = []

    def step(self) -> None:
        """Let half a second pass."""
        if self.clock.now % heartbeats.HEARTBEAT_INTERVAL_S == 0:
            self._sent = [(finished.read(), finished.read_busy()) for finished in self._finished]
        self.clock.now += 0.5
        for finished, held in zip(self._finished, self._held, strict=True):
            for end, count in held.copy():
                if end <= self.clock.now:
                    held.remove((end, count))
                    finished.add(count)
            while len(held) < self._kind.threads and self.waiting:
                count = min(self._kind.size, self.waiting)
                self.waiting -= count
                held.append((self.clock.now + self._kind.seconds, count))
            finished.set_busy(bool(held))

    def measure(self) -> Measured:
        """Return the queue as the web process measures it."""
        running, at = sum(count for held in self._held for _, count in held), datetime(2024, 1, 1)
        workers = [
            Worker(f"w{number}", self._kind.queue, "h", number, at, at, True, None, None, *finished, *busy)  # noqa: FBT003 -- is_alive
            for number, (finished, busy) in enumerate(self._sent)
        ]
        return Measured(self.waiting, running, 1.0, len(workers), heartbeats.sum_rates(workers), heartbeats.estimate_rate(workers))

    def do(self, count: int) -> Iterator[tuple[float, Measured]]:
        """Queue work, and yield the time and what is measured until all is done."""
        self.waiting = count
        while self.waiting or any(self._held):
            self.step()
            yield self.clock.now, self.measure()

    def idle(self, seconds: float) -> None:
        """Let time pass without work."""
        for _ in range(int(2 * seconds)):
            self.step()


KINDS = [Kind(IMAGES, 2, 1, 8, 2.5), Kind(INSPECTIONS, 1, 4, 1, 1.5), Kind(JOBS, 1, 1, 1, 4.0), Kind(JOBS, 3, 1, 1, 40.0)]


@pytest.mark.parametrize("kind", KINDS, ids=["images", "inspections", "jobs", "long jobs"])
@pytest.mark.parametrize("idle_s", [0, 600, 3000], ids=str)
def test_after_idle_time_the_time_until_a_queue_is_done_is_true_from_the_first_second(kind: Kind, idle_s: int) -> None:
    service = Service(kind)
    in_a_minute = int(60 / kind.seconds * kind.size * kind.threads * kind.workers) or 3
    for _ in service.do(in_a_minute):
        pass
    service.idle(idle_s)
    measured = list(service.do(2 * in_a_minute))
    done_at, checked = measured[-1][0], 0
    for now, found in measured:
        left_s, eta_s = done_at - now, found.eta_s(is_paused=False)
        if found.waiting and left_s >= 10:
            assert eta_s is not None
            assert left_s / 2 <= eta_s <= 2 * left_s, (now, left_s, eta_s)
            checked += 1
    assert checked >= 100
    if idle_s:
        rate = measured[0][1].rate_per_minute
        assert rate is not None
        assert rate < in_a_minute / 10  # this one is about the time that has passed


@pytest.mark.parametrize("kind", KINDS[:3], ids=["images", "inspections", "jobs"])
def test_workers_that_have_never_finished_anything_know_it_soon_after_their_first_result(kind: Kind) -> None:
    service = Service(kind)
    service.idle(600)
    measured = list(service.do(int(120 / kind.seconds * kind.size * kind.threads * kind.workers)))
    assert measured[0][1].eta_s(is_paused=False) is None
    done_at, checked = measured[-1][0], 0
    for now, found in measured:
        left_s, eta_s = done_at - now, found.eta_s(is_paused=False)
        if now >= 600 + 3 * kind.seconds + 3 and found.waiting and left_s >= 10:
            assert eta_s is not None
            assert left_s / 2 <= eta_s <= 2 * left_s, (now, left_s, eta_s)
            checked += 1
    assert checked
