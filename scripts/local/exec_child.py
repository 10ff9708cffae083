"""``python -m scripts.local.exec_child NAME PIDFILE -- COMMAND``: write a pid file, then exec COMMAND.

The kernel kills the process when its parent ends. A process that is restarted within a second after its last start
waits for a second before it executes COMMAND, because a service that cannot start must not keep a core busy.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

PARENT_PID: Final = "SHELFSIGHT_PARENT"
"""Environment variable with the expected pid of the parent; each process sets it to its own pid for its children."""
_PR_SET_PDEATHSIG: Final = 1
_MIN_INTERVAL_S: Final = 1.0


def main() -> None:
    """Write the pid file and exec the command."""
    _, pidfile, _, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(PARENT_PID, str(os.getppid())) != str(os.getppid()):
        # The parent ended before prctl was called, so the kernel sends no signal. If this process continued, a
        # mongod would lock its data folder forever.
        return
    os.environ[PARENT_PID] = str(os.getpid())
    path = Path(pidfile)
    try:
        since = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        since = _MIN_INTERVAL_S
    if 0 <= since < _MIN_INTERVAL_S:
        time.sleep(_MIN_INTERVAL_S)  # limits the rate of restarts
    temp = path.with_suffix(".new")
    temp.write_text(f"{os.getpid()}\n")
    temp.replace(path)
    with path.with_suffix(".starts").open("a") as starts:  # one byte for each start; scripts/status counts the bytes
        starts.write(".")
    os.execvp(command[0], command)  # noqa: S606 -- no shell on purpose


if __name__ == "__main__":
    main()
