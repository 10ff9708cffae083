"""End what ``scripts/start`` started over a data folder, in order: ``scripts/stop``."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from scripts.local.data import DEFAULT, Data
from scripts.local.start import STOP_LIMIT_S


def main() -> None:
    """Ask the guardian to end and wait for it; clean up after one that was killed."""
    parser = argparse.ArgumentParser(prog="scripts/stop", description="Stop Shelfsight on this machine, in order.")
    parser.add_argument("--data", type=Path, default=DEFAULT, metavar="DIR", help="the folder given to scripts/start (default: data)")
    data = Data(parser.parse_args().data)
    try:
        stopped = stop(data)
    except TimeoutError as error:
        sys.exit(f"error: {error}")
    print("Stopped." if stopped else f"Nothing runs over {data.root}.")


def stop(data: Data) -> bool:
    """End the stack of a folder.

    :returns: whether anything ran.
    :raises TimeoutError: it does not end.
    """
    if not data.run.is_dir():
        return False
    if not data.is_held():
        return data.end_leftovers() > 0
    until = time.monotonic() + STOP_LIMIT_S
    asked: int | None = None
    with Console(stderr=True).status("Stopping: web, workers, sweep, then the servers ..."):
        while data.is_held():
            guardian = data.pid("guardian")
            if guardian is not None and guardian != asked:
                os.kill(guardian, signal.SIGTERM)
                asked = guardian
            if time.monotonic() > until:
                raise TimeoutError(f"it does not end within {STOP_LIMIT_S:.0f} s; see {data.log}, or kill pid {asked}")
            time.sleep(0.1)  # polling another process; there is nothing to wait on
    data.end_leftovers()
    return True


if __name__ == "__main__":
    main()
