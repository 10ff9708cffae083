"""Values that are expensive to compute, and are therefore computed once for many requests."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_PAUSE_FACTOR: Final = 20
_BRIEF_S: Final = 0.1


class CachedValue(Generic[T]):
    """Computes a value when it is used, unless it was computed less than ``max_age_s`` seconds before. Thread-safe."""

    def __init__(self, max_age_s: float, compute: Callable[[], T], *, lasts: Callable[[T], bool] = lambda _: True) -> None:
        """Create the value. It is computed when it is first used.

        :param lasts: returns False for a value that is used for a tenth of a second at most, because it soon changes.
        """
        self._max_age_s, self._compute, self._lasts = max_age_s, compute, lasts
        self._lock = threading.Lock()
        self._current: Future[T] | None = None
        self._expires_at = 0.0

    def get(self) -> T:
        """Return the value, or raise the exception with which its computation failed.

        Threads that call this method during a computation wait for it, and get its result.
        """
        with self._lock:
            current = self._current
            if current is not None and (not current.done() or time.monotonic() < self._expires_at):
                is_new = False
            else:
                is_new = True
                self._current = current = Future()
        if is_new:
            self._run(current)
        return current.result()

    def _run(self, current: "Future[T]") -> None:
        try:
            value = self._compute()
        except BaseException as error:  # noqa: BLE001 -- get() raises it, in every thread that waits
            self._expires_at = time.monotonic() + self._max_age_s
            current.set_exception(error)
        else:
            max_age_s = self._max_age_s if self._lasts(value) else min(self._max_age_s, _BRIEF_S)
            self._expires_at = time.monotonic() + max_age_s
            current.set_result(value)


class RefreshedValue(Generic[T]):
    """A value that a background thread measures again and again, so that no request waits for a measurement.

    Only the calls of ``get`` before the end of the first measurement wait for it. If a measurement fails, the previous
    value remains. The pause between two measurements is 20 times as long as the measurement before it, but at least
    ``min_pause_s`` seconds, so a slow measurement does not occupy the database. After a failure, it is ``min_pause_s``.
    """

    def __init__(self, min_pause_s: float, measure: Callable[[], T]) -> None:
        """Create the value. The first call of ``get`` starts the thread.

        :param measure: function that returns the value. It must end within a limited time.
        """
        self._min_pause_s, self._measure = min_pause_s, measure
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._latest: tuple[T, float] | None = None
        self._error: Exception | None = None

    def get(self) -> T:
        """Return the latest value; if there is none yet, raise the exception with which the latest measurement failed."""
        return self._read()[0]

    def age_s(self) -> float:
        """Return the number of seconds since the measurement of the latest value began."""
        return time.monotonic() - self._read()[1]

    def close(self) -> None:
        """End the thread after the measurement in progress."""
        self._closed.set()

    def _read(self) -> tuple[T, float]:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._latest is not None or self._error is not None)
            if self._latest is not None:
                return self._latest
            assert self._error is not None  # noqa: S101 -- the wait ends when there is a value or an error
            raise self._error

    def _run(self) -> None:
        while True:
            started_at = time.monotonic()
            took_s = 0.0
            try:
                value = self._measure()
            except Exception as error:  # noqa: BLE001 -- get() raises it if there is no earlier value
                self._publish(self._latest, error)
            else:
                took_s = time.monotonic() - started_at
                self._publish((value, started_at), None)
            if self._closed.wait(max(self._min_pause_s, _PAUSE_FACTOR * took_s)):
                return

    def _publish(self, latest: tuple[T, float] | None, error: Exception | None) -> None:
        with self._changed:
            self._latest, self._error = latest, error
            self._changed.notify_all()
