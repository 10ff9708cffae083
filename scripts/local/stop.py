"""End what ``scripts/start`` started over a data folder, in order: ``scripts/stop``."""

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from scripts.local.installation import DEFAULT_DATA, House, known
from scripts.local.start import STOP_LIMIT_S


def main() -> None:
    """Ask the guard to end and wait for it."""
    parser = argparse.ArgumentParser(prog="scripts/stop", description="Stop Shelfsight on this machine, in order.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the folder given to scripts/start (default: data)")
    data = parser.parse_args().data.resolve()
    try:
        house = known(data)
        stopped = house is not None and stop(house)
    except TimeoutError as error:
        sys.exit(f"error: {error}")
    except PermissionError:
        sys.exit(f"error: what runs over {data} belongs to somebody else: stop it as that user")
    print("Stopped." if stopped else f"Nothing runs over {data}.")


def stop(house: House) -> bool:
    """End the processes of a folder; servers that were given by their URLs are somebody else's and go on.

    :returns: whether anything ran.
    :raises TimeoutError: it does not end.
    :raises PermissionError: it belongs to another user.
    """
    guard = house.holder()
    if guard is None:
        return False
    until = time.monotonic() + STOP_LIMIT_S
    with Console(stderr=True).status("Stopping: web, workers, sweep, then the servers ..."):
        if guard > 0:
            with contextlib.suppress(ProcessLookupError):  # it ends already
                os.kill(guard, signal.SIGTERM)
        while house.holder() is not None:
            if time.monotonic() > until:
                raise TimeoutError(f"it does not end within {STOP_LIMIT_S:.0f} s; see {house.logs}, or kill pid {guard}")
            time.sleep(0.1)  # polling another process; there is nothing to wait on
    return True


if __name__ == "__main__":
    main()
