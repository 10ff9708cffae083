"""Start everything on this machine and wait until it is ready: ``scripts/start``."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console

from scripts.local import embedded
from scripts.local.house import DEFAULT_DATA, ROOT, House, known

READY_LIMIT_S: Final = 240.0
"""The first start of a worker reads a few hundred MB of libraries; a slow disk takes a while."""
STOP_LIMIT_S: Final = 180.0
_ORPHANS_S: Final = 15.0
_console = Console(stderr=True, highlight=False)


class CannotStart(Exception):
    """One line for the user, with its remedy."""


def main() -> None:
    """Start, wait, print the addresses; in the foreground stay until Ctrl-C."""
    asked = _arguments()
    house = House(asked.data.resolve(), asked.port, asked.workers or len(os.sched_getaffinity(0)))
    try:
        house.prepare()
        _check(house)
        guard = _launch(house)
        if asked.detach:
            _wait_until_ready(house, guard)
            _print_addresses(house, detached=True)
        else:
            _stay(house, guard)
    except (CannotStart, embedded.Unusable) as error:
        sys.exit(f"error: {error}")
    except PermissionError as error:
        sys.exit(f"error: {error.filename} belongs to somebody else; choose another folder with --data")


def readiness(url: str) -> dict[str, str] | None:
    """Ask ``/readyz``.

    :returns: what is not ready and why (empty: all is), or None when nobody answers.
    """
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310 -- always http to loopback
            body: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            body = json.load(error)
        except ValueError:
            return None
    except (OSError, ValueError):
        return None
    return {name: str(part["detail"]) for name, part in body.get("checks", {}).items() if not part["ok"]}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/start", description="Start Shelfsight on this machine and wait until it is ready.")
    parser.add_argument("--detach", action="store_true", help="return once it is ready; scripts/stop ends it")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="where everything is kept (default: data)")
    parser.add_argument("--port", type=_number(1, 65535), default=5000, metavar="N", help="port of the web front on loopback (default: 5000)")
    parser.add_argument("--workers", type=_number(1, 256), metavar="N", help="worker processes (default: one for each core)")
    return parser.parse_args()


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least} to {most}")
        return value

    return number


def _check(house: House) -> None:
    """See what stands in the way, while a line on the terminal can still say it.

    :raises CannotStart: it runs already, or the web port is taken.
    :raises embedded.Unusable: the machine lacks something.
    """
    lock = house.lock()
    if lock is None:
        raise _runs_already(house)
    lock.close()
    until = time.monotonic() + _ORPHANS_S
    while (house.run / "guard.pid").exists() and not embedded.is_free(house.port) and time.monotonic() < until:
        time.sleep(0.1)  # after a crash; the last children of a killed process notice within a second or two
    if not embedded.is_free(house.port):
        raise CannotStart(f"port {house.port} is taken; choose another one with --port, or end what listens there")
    if house.own_mongo:
        embedded.check_mongod()


def _runs_already(house: House) -> CannotStart:
    running = known(house.data) or house
    return CannotStart(f"it runs already over {house.data} at {_url(running)}; see scripts/status, end it with scripts/stop, or choose another --data")


def _url(house: House) -> str:
    return f"http://{embedded.LOOPBACK}:{house.port}"


def _launch(house: House) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "scripts.local.guard"]
    command += ["--data", str(house.data), "--port", str(house.port), "--workers", str(house.workers)]
    with (house.logs / "guard.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on in order
        )


def _wait_until_ready(house: House, guard: "subprocess.Popen[bytes]") -> None:
    """Show what it waits for, until ``/readyz`` says 200.

    :raises CannotStart: it ended, or is not ready in time.
    """
    began = time.monotonic()
    with _console.status("Starting ...") as line:
        shown = ""
        while time.monotonic() - began < READY_LIMIT_S:
            if guard.poll() is not None:
                raise CannotStart(f"it ended while starting; see {house.logs}")
            missing = readiness(_url(house))
            if missing == {}:
                _console.print(f"Ready after {time.monotonic() - began:.0f} s.")
                return
            now = _stage(missing)
            if now != shown:
                line.update(now)
                if not _console.is_terminal:
                    _console.print(now)
                shown = now
            time.sleep(0.2)  # polling other processes; there is nothing to wait on
    why = "; ".join(f"{name}: {detail}" for name, detail in (readiness(_url(house)) or {}).items()) or shown
    raise CannotStart(f"it is not ready after {READY_LIMIT_S:.0f} s ({why}); scripts/status and {house.logs} say more")


def _stage(missing: dict[str, str] | None) -> str:
    if missing is None:
        return "Starting the servers and the web front ..."
    return "Waiting for: " + ", ".join(sorted(missing))


def _stay(house: House, guard: "subprocess.Popen[bytes]") -> None:
    """Keep the terminal until Ctrl-C or SIGTERM, then end everything in order."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _wait_until_ready(house, guard)
        _print_addresses(house, detached=False)
        guard.wait()
        raise CannotStart(f"it has ended; see {house.logs}")
    except KeyboardInterrupt:
        pass
    finally:
        _end(guard)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(guard: "subprocess.Popen[bytes]") -> None:
    if guard.poll() is not None:
        return
    guard.terminate()
    try:
        with _console.status("Stopping: web, workers, sweep, then the servers (Ctrl-C again ends them at once) ..."):
            guard.wait(STOP_LIMIT_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        guard.kill()  # the kernel ends the rest
        guard.wait(STOP_LIMIT_S)
    _console.print("Stopped.")


def _print_addresses(house: House, *, detached: bool) -> None:
    print(f"Shelfsight runs at  {_url(house)}/")
    print(f"API                 {_url(house)}/docs")
    print(f"Upload              scripts/upload FOLDER --url {_url(house)} --store NAME")
    suffix = "" if house.data == DEFAULT_DATA else f" --data {house.data}"
    print(f"State, stop         scripts/status{suffix}, " + (f"scripts/stop{suffix}" if detached else "Ctrl-C"), flush=True)


if __name__ == "__main__":
    main()
