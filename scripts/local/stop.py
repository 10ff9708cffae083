"""``scripts/stop``: cleanly stop the installation that ``scripts/start`` started with a data folder."""

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from scripts.local import messages
from scripts.local.installation import DEFAULT_DATA, Installation, data_folder, load_installation
from scripts.local.start import STOP_LIMIT_S


def main() -> None:
    """Stop the watchdog and wait until it has ended."""
    parser = argparse.ArgumentParser(prog="scripts/stop", description="Stop Shelfsight on this machine cleanly.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the folder given to scripts/start (default: data)")
    data = data_folder(parser.parse_args().data)
    messages.print_any_text()
    try:
        installation = load_installation(data)
        stopped = installation is not None and stop(installation)
    except TimeoutError as error:
        sys.exit(f"error: {error}")
    except PermissionError:
        sys.exit(f"error: the installation in {data} belongs to another user; run scripts/stop as that user")
    print("Stopped." if stopped else f"Nothing is running with the data folder {data}.")


def stop(installation: Installation) -> bool:
    """Stop the processes of an installation. Servers set by ``MONGODB_URL`` or ``REDIS_URL`` are not stopped.

    :returns: whether anything was running.
    :raises TimeoutError: when the installation is still running after ``STOP_LIMIT_S`` seconds.
    :raises PermissionError: when the installation belongs to another user.
    """
    watchdog = installation.find_lock_holder()
    if watchdog is None:
        return False
    until = time.monotonic() + STOP_LIMIT_S
    with Console(stderr=True).status("Stopping: web, workers, sweep, then the servers ..."):
        if watchdog > 0:
            with contextlib.suppress(ProcessLookupError):  # the watchdog has just ended
                os.kill(watchdog, signal.SIGTERM)
        while installation.find_lock_holder() is not None:
            if time.monotonic() > until:
                raise TimeoutError(f"Shelfsight is still running after {STOP_LIMIT_S:.0f} s; see {installation.logs}, or kill the process with pid {watchdog}")
            time.sleep(0.1)  # poll, because the watchdog sends no notification
    return True


if __name__ == "__main__":
    main()
