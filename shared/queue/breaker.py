"""A circuit breaker for calls to Redis.

After a failure, further calls are left out for a while. Without the breaker, each of them would wait for a timeout.
"""

import threading
import time
from typing import Final

PAUSE_S: Final = 1.0


class Breaker:
    """A circuit breaker that opens when a call fails. Thread-safe.

    While it is open, it admits one call in ``PAUSE_S`` seconds. When such a call succeeds, the breaker closes. So while
    Redis does not respond, one thread at a time waits for it, however many threads there are, if the timeout is shorter
    than ``PAUSE_S``. Each object that calls Redis has its own breaker.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_at: float | None = None
        """The time at which the next call is admitted. None while the breaker is closed."""

    def admits(self) -> bool:
        """Return whether the caller may call Redis now. If so, it then calls ``trip`` or ``reset``."""
        if self._next_at is None:
            return True
        with self._lock:
            now = time.monotonic()
            if self._next_at is not None and now < self._next_at:
                return False
            self._next_at = None if self._next_at is None else now + PAUSE_S
            return True

    def trip(self) -> None:
        """Record a failure: open the breaker."""
        with self._lock:
            self._next_at = time.monotonic() + PAUSE_S

    def reset(self) -> None:
        """Record a success: close the breaker."""
        if self._next_at is not None:
            with self._lock:
                self._next_at = None
