"""Time limits of a fetch: one for each phase, and one for the whole fetch that no phase outlasts."""

import math
from time import monotonic

from shared.errors import UpstreamTimeout


class Deadline:
    """The deadline of one fetch and of its current phase.

    A timeout of a single read does not help against a source that sends one byte a second; a deadline does.
    """

    def __init__(self, whole_s: float) -> None:
        self._end = monotonic() + whole_s
        self._phase_end = self._end

    def start_phase(self, phase_s: float = math.inf) -> None:
        """Start a phase of ``phase_s`` seconds; without a limit of its own it ends with the whole fetch."""
        self._phase_end = min(self._end, monotonic() + phase_s)

    def remaining_s(self) -> float:
        """Return the seconds that remain of the phase, always more than 0.

        :raises UpstreamTimeout: when the phase or the whole fetch has reached its limit.
        """
        remaining_s = self._phase_end - monotonic()
        if remaining_s <= 0:
            raise timeout_error()
        return remaining_s


def timeout_error() -> UpstreamTimeout:
    """Return the error of an exceeded limit; it does not name the phase."""
    return UpstreamTimeout("The source did not send a complete response within the time limit.")
