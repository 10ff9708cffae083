"""End what ``scripts/start`` started over a data folder, in order: ``scripts/stop``."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from scripts.local.house import DEFAULT_DATA, House, known
from scripts.local.start import STOP_LIMIT_S


def main() -> None:
    """Ask the guard to end and wait for it."""
    parser = argparse.ArgumentParser(prog="scripts/stop", description="Stop Shelfsight on this machine, in order.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the folder given to scripts/start (default: data)")
    data = parser.parse_args().data.resolve()
    house = known(data)
    try:
        stopped = house is not None and stop(house)
    except TimeoutError as error:
        sys.exit(f"error: {error}")
    print("Stopped." if stopped else f"Nothing runs over {data}.")


def stop(house: House) -> bool:
    """End the processes of a folder.

    :returns: whether anything ran.
    :raises TimeoutError: it does not end.
    """
    if _is_free(house):
        return False
    until = time.monotonic() + STOP_LIMIT_S
    guard = house.pid("guard")
    with Console(stderr=True).status("Stopping: web, workers, sweep, then the servers ..."):
        if guard is not None:
            os.kill(guard, signal.SIGTERM)
        while not _is_free(house):
            if time.monotonic() > until:
                raise TimeoutError(f"it does not end within {STOP_LIMIT_S:.0f} s; see {house.logs}, or kill pid {guard}")
            time.sleep(0.1)  # polling another process; there is nothing to wait on
    return True


def _is_free(house: House) -> bool:
    lock = house.lock()
    if lock is None:
        return False
    lock.close()
    return True


if __name__ == "__main__":
    main()
