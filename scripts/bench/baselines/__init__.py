"""What the service is compared with, each as small as it can be."""

import ctypes
import signal
from typing import Final

READY: Final = "ready to answer"
"""What a baseline prints when it is, unless it can be asked."""
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the bench ends, however it does (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
