"""A circuit breaker for calls to Redis: after a failure, further calls fail at once for a while instead of each waiting for a timeout."""

import time
from typing import Final

PAUSE_S: Final = 1.0


class Breaker:
    """Open for ``PAUSE_S`` after each failure. Thread-safe; there is one for each client object."""

    def __init__(self) -> None:
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls must not be attempted now."""
        return time.monotonic() < self._open_until

    def trip(self) -> None:
        """Record a failure."""
        self._open_until = time.monotonic() + PAUSE_S
