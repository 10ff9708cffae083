"""A circuit breaker for calls to Redis.

After a failure, further calls fail immediately for a while. Without the breaker, each of them would wait for a timeout.
"""

import time
from typing import Final

PAUSE_S: Final = 1.0


class Breaker:
    """A circuit breaker that is open for ``PAUSE_S`` seconds after each failure. Thread-safe.

    Each object that calls Redis has its own breaker.
    """

    def __init__(self) -> None:
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open, that is, the caller must not call Redis now."""
        return time.monotonic() < self._open_until

    def trip(self) -> None:
        """Record a failure: open the breaker for ``PAUSE_S`` seconds."""
        self._open_until = time.monotonic() + PAUSE_S
