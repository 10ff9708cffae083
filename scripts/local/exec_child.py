"""``python -m scripts.local.exec_child NAME PIDFILE -- COMMAND``: become COMMAND, with its pid on file, and die with the parent.

A process that ended within a second of its start waits a second before the next one: a service that cannot start must not
keep a core busy.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

PARENT: Final = "SHELFSIGHT_PARENT"
"""Variable with the pid that the parent of such a process has; each says its own to those that it starts."""
_PR_SET_PDEATHSIG: Final = 1
_SOON_S: Final = 1.0


def main() -> None:
    """Write the pid file and become the command."""
    _, pidfile, _, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
        return  # it ended while this Python was starting: nobody would end us with it, and a mongod would keep the folder for ever
    os.environ[PARENT] = str(os.getpid())
    path = Path(pidfile)
    try:
        since = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        since = _SOON_S
    if 0 <= since < _SOON_S:
        time.sleep(_SOON_S)  # see above: not a start after the other
    temp = path.with_suffix(".new")
    temp.write_text(f"{os.getpid()}\n")
    temp.replace(path)
    with path.with_suffix(".starts").open("a") as starts:  # one byte a start, for scripts/status
        starts.write(".")
    os.execvp(command[0], command)  # noqa: S606 -- no shell on purpose


if __name__ == "__main__":
    main()
