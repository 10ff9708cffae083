"""The pipe between ``scripts/start`` and the watchdog that it starts.

``scripts/start`` holds the write end and passes the read end to the watchdog (``--parent-pipe``). The kernel closes the write end when
``scripts/start`` ends, whatever the cause, SIGKILL included: the watchdog then stops everything. One byte written before that detaches
the watchdog, which then runs on without its parent.
"""

import os
import signal
import threading
from typing import Final

_DETACH: Final = b"."


def open_pipe() -> tuple[int, int]:
    """Open the pipe.

    :returns: descriptors of the read end, for the watchdog, and of the write end, for its parent.
    """
    return os.pipe()


def detach(write_end: int) -> None:
    """Let the watchdog run on after this process ends."""
    os.write(write_end, _DETACH)


def stop_when_closed(read_end: int) -> None:
    """Send SIGTERM to this process when the write end is closed before ``detach``; a thread waits for that."""

    def wait_for_parent() -> None:
        detached = os.read(read_end, 1)
        os.close(read_end)
        if not detached:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_parent, name="parent-pipe", daemon=True).start()
