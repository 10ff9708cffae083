"""Counts the work that a pool child has finished lately, and the time that it took, for its heartbeats."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 120.0
"""The rates that are shown are those of the last two minutes."""
MIN_BUSY_S: Final = 20.0
MIN_FINISHED: Final = 20
"""What is finished while the pool child is busy is counted over at least so many busy seconds and so much finished work, however long
ago that was, up to ``KEEP_S``. So it is known after a time without work, and also if one job takes minutes."""
KEEP_S: Final = 3600.0
_BUCKET_S: Final = 5.0


@dataclass(slots=True)
class _Bucket:
    """What was finished in some seconds from ``start`` on, and how many of these the pool child was busy."""

    start: float
    finished: int = 0
    busy_s: float = 0.0


class FinishedWork:
    """Counts the finished images, inspections or jobs of the last hour, and the seconds in which the pool child held any. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._since = clock()
        self._busy_since: float | None = None
        self._unfinished_s = 0.0
        self._buckets: deque[_Bucket] = deque()

    def add(self, count: int = 1) -> None:
        """Count finished work. What was released, to be tried again, is not finished."""
        with self._lock:
            now = self._advance()
            if count:
                self._current(now).finished += count
                self._unfinished_s = 0.0

    def set_busy(self, is_busy: bool) -> None:  # noqa: FBT001 -- it is called through a Callable[[bool], object]
        """Note whether the pool child holds work from now on."""
        with self._lock:
            now = self._advance()
            self._busy_since = now if is_busy else None

    def read(self) -> tuple[int, float]:
        """Return how much was finished in the last ``WINDOW_S`` seconds or since the start, and how many seconds these are."""
        with self._lock:
            now = self._advance()
            count = sum(bucket.finished for bucket in self._buckets if bucket.start > now - WINDOW_S)
            return count, min(WINDOW_S, now - self._since)

    def read_busy(self) -> tuple[int, float]:
        """Return how much was finished in the last busy seconds, and how many these are.

        The busy seconds since the last of it are not among them, unless they are more: what they were for is not finished yet.
        """
        with self._lock:
            self._advance()
            finished, busy_s = 0, -self._unfinished_s
            for bucket in reversed(self._buckets):
                if finished >= MIN_FINISHED and busy_s >= MIN_BUSY_S:
                    break
                finished, busy_s = finished + bucket.finished, busy_s + bucket.busy_s
            return finished, max(busy_s, self._unfinished_s)

    def _advance(self) -> float:
        """Count the busy time until now, forget what is too old, and return the time."""
        now = self._clock()
        if self._busy_since is not None and now > self._busy_since:
            self._current(self._busy_since).busy_s += now - self._busy_since
            self._unfinished_s += now - self._busy_since
            self._busy_since = now
        while self._buckets and self._buckets[0].start <= now - KEEP_S:
            self._buckets.popleft()
        return now

    def _current(self, now: float) -> _Bucket:
        if not self._buckets or now - self._buckets[-1].start >= _BUCKET_S:
            self._buckets.append(_Bucket(now))
        return self._buckets[-1]
