"""The pipe between ``scripts/start`` and the watchdog that it starts.

``scripts/start`` holds the write end and passes the read end to the watchdog (``--parent-pipe``). The kernel closes the
write end when ``scripts/start`` ends for any reason, including SIGKILL, and the watchdog then stops everything. If
``scripts/start`` writes one byte to the pipe before it ends, the watchdog is detached and continues to run without its
parent.
"""

import os
import signal
import threading
from typing import Final

_DETACH: Final = b"."


def open_pipe() -> tuple[int, int]:
    """Open the pipe between ``scripts/start`` and the watchdog.

    :returns: two file descriptors: the read end, which the watchdog needs, and the write end, which ``scripts/start``
        keeps.
    """
    return os.pipe()


def detach(write_end: int) -> None:
    """Detach the watchdog from this process, so that the watchdog continues to run after this process has ended."""
    os.write(write_end, _DETACH)


def stop_when_closed(read_end: int) -> None:
    """Start a thread that sends SIGTERM to this process if the write end is closed before ``detach`` was called."""

    def wait_for_parent() -> None:
        detached = os.read(read_end, 1)
        os.close(read_end)
        if not detached:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_parent, name="parent-pipe", daemon=True).start()
