"""Wait until processes are ready or have done their work."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], seconds: float, problem: str, *, interval_s: float = 0.1) -> None:
    """Wait until a condition holds.

    :param problem: what is wrong if the condition does not hold in time, without the full stop.
    :param interval_s: seconds between two calls of ``condition``.
    :raises RuntimeError: when the condition does not hold within ``seconds`` seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{problem} within {seconds:.0f} s.")
        time.sleep(interval_s)  # poll, because neither processes nor the database send a notification
