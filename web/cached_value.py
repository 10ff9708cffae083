"""Cache a value that is expensive to compute."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class CachedValue(Generic[T]):
    """Computes a value when it is first used, and recomputes it when it is older than ``max_age_s``. Thread-safe."""

    def __init__(self, max_age_s: float, compute: Callable[[], T]) -> None:
        self._max_age_s, self._compute = max_age_s, compute
        self._lock = threading.Lock()
        self._value: T | None = None
        self._expires_at = 0.0

    def get(self) -> T:
        """Return the value. While one thread recomputes the value, other threads receive the previous value."""
        value = self._value
        if value is not None and time.monotonic() < self._expires_at:
            return value
        if not self._lock.acquire(blocking=value is None) and value is not None:
            return value
        try:
            if self._value is None or time.monotonic() >= self._expires_at:
                self._value = self._compute()
                self._expires_at = time.monotonic() + self._max_age_s
            return self._value
        finally:
            self._lock.release()
