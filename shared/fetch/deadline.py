"""Time limits for a fetch: one limit for each phase, and one for the whole fetch, which no phase can exceed."""

import math
from time import monotonic
from typing import Final

from shared.errors import UpstreamTimeout

_SHORTEST_S: Final = 0.001
"""A phase with less time left than this has ended. A socket rounds its timeout, and a timeout of 0 is no timeout."""


class Deadline:
    """The deadline of one fetch and of its current phase.

    A timeout for each read would not stop a source that sends one byte per second. A deadline does.
    """

    def __init__(self, whole_s: float) -> None:
        self._end = monotonic() + whole_s
        self._phase_end = self._end

    def start_phase(self, phase_s: float = math.inf) -> None:
        """Start a phase of at most ``phase_s`` seconds. By default, the phase lasts until the deadline of the fetch."""
        self._phase_end = min(self._end, monotonic() + phase_s)

    def remaining_s(self) -> float:
        """Return how many seconds remain in the current phase. The result is at least ``_SHORTEST_S``.

        :raises UpstreamTimeout: when the phase or the whole fetch has reached its limit.
        """
        remaining_s = self._phase_end - monotonic()
        if remaining_s < _SHORTEST_S:
            raise timeout_error()
        return remaining_s


def timeout_error() -> UpstreamTimeout:
    """Return the error for an exceeded time limit. Its sentence does not name the phase."""
    return UpstreamTimeout("The source did not send a complete response within the time limit.")
