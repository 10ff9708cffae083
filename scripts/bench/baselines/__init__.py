"""Baselines for the benchmarks; each is as small as possible."""

import ctypes
import signal
from typing import Final

READY: Final = "ready to answer"
"""The line that a baseline without a health route prints when it is ready."""
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Make the kernel send SIGTERM to this process when its parent ends for any reason (see prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
