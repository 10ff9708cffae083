"""How long something may still take: each phase has its limit, and the whole one that no phase outlasts."""

import math
from time import monotonic

from shared.errors import UpstreamTimeout


class Clock:
    """Of one fetch. A limit of a single read does not help against a source that sends one byte a second; this one does."""

    def __init__(self, whole_s: float) -> None:
        """Begin now."""
        self._end = monotonic() + whole_s
        self._phase_end = self._end

    def begin(self, phase_s: float = math.inf) -> None:
        """Begin a phase; without a limit of its own it ends with the whole."""
        self._phase_end = min(self._end, monotonic() + phase_s)

    def left(self) -> float:
        """Give the seconds that are left of the phase, more than 0.

        :raises UpstreamTimeout: there are none.
        """
        left = self._phase_end - monotonic()
        if left <= 0:
            raise too_slow()
        return left


def too_slow() -> UpstreamTimeout:
    """Make the error; it does not say what was waited for."""
    return UpstreamTimeout("The source did not answer in full within the time limit.")
