"""Start everything on this machine and wait until it is ready: ``scripts/start``."""

import argparse
import json
import os
import shutil
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

from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from scripts.local import embedded_servers
from scripts.local.installation import DEFAULT_DATA, ROOT, House, known
from scripts.local.model_errors import ModelTrouble
from shared.settings import Settings, explain

READY_LIMIT_S: Final = 240.0
"""The first start of a worker reads a few hundred MB of libraries; a slow disk takes a while. A server that recovers its data
has all the time it needs besides."""
STOP_LIMIT_S: Final = 180.0
_ORPHANS_S: Final = 15.0
_console = Console(stderr=True, highlight=False)


class CannotStart(Exception):
    """One line for the user, with its remedy."""


class StoppedElsewhere(Exception):
    """Somebody ran ``scripts/stop``, or ended the guard in order by a signal."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP; its argument is the signal's number."""


def main() -> None:
    """Start, wait, print the addresses; in the foreground stay until Ctrl-C.

    Exit codes: 0 ready (or, in the foreground, ended in order), 1 not started, 128 + signal when interrupted before it was ready.
    Unless it exits with 0, nothing is left running.
    """
    asked = _arguments()
    house = House(asked.data.resolve(), asked.port, asked.workers or len(os.sched_getaffinity(0)))
    _listen_to_signals()
    try:
        _check(house)
        _start(house, detach=asked.detach)
    except (CannotStart, embedded_servers.Unusable) as error:
        sys.exit(f"error: {error}")
    except StoppedElsewhere:
        _console.print("Stopped from elsewhere (scripts/stop).")
        sys.exit(1 if asked.detach else 0)
    except Interrupted as interrupted:
        _console.print("error: interrupted before it was ready; nothing is left running")
        sys.exit(128 + interrupted.args[0])
    except PermissionError as error:
        sys.exit(f"error: {error.filename} belongs to somebody else; choose another folder with --data")
    except OSError as error:
        sys.exit(f"error: {error.filename or house.data}: {error.strerror or error}; make room there, or choose another folder with --data")


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

    :raises CannotStart: it runs already, the web port is taken, a setting is wrong, or there is no room.
    :raises embedded.Unusable: the machine lacks something.
    :raises OSError: the folder cannot be made.
    """
    try:
        settings = Settings()
    except (ValidationError, SettingsError) as error:
        raise CannotStart(explain(error)) from error
    if house.holder() is not None:
        raise _runs_already(house)
    used = known(house.data) is not None
    house.prepare()
    until = time.monotonic() + _ORPHANS_S
    while (house.run / "guard.pid").exists() and not embedded_servers.is_free(house.port) and time.monotonic() < until:
        time.sleep(0.1)  # after a crash; the last children of a killed process notice within a second or two
    if not embedded_servers.is_free(house.port):
        raise CannotStart(f"port {house.port} is taken; choose another one with --port, or end what listens there")
    _check_disk(house, settings.blobs.min_free_bytes, used=used)
    if house.own_mongo:
        embedded_servers.check_mongod()


def _check_disk(house: House, watermark: int, *, used: bool) -> None:
    """See whether uploads would be accepted. A folder that holds data is started all the same: what it has can be seen and deleted.

    :raises CannotStart: there is no room for a new installation.
    """
    free = shutil.disk_usage(house.data / "blobs").free
    if free >= watermark:
        return
    short = f"only {free / 1e9:.1f} GB are free under {house.data}, and uploads stop below {watermark / 1e9:.1f} GB"
    if not used:
        raise CannotStart(f"{short}: make room, choose another folder with --data, or lower BLOBS_MIN_FREE_BYTES")
    _console.print(f"warning: {short}: make room, delete batches that nobody needs, or lower BLOBS_MIN_FREE_BYTES", soft_wrap=True)


def _runs_already(house: House) -> CannotStart:
    running = known(house.data) or house
    return CannotStart(f"it runs already over {house.data} at {_url(running)}; see scripts/status, end it with scripts/stop (both with the same --data), or choose another folder")


def _url(house: House) -> str:
    return f"http://{embedded_servers.LOOPBACK}:{house.port}"


def _start(house: House, *, detach: bool) -> None:
    """Bring everything up; in the foreground stay until Ctrl-C, SIGTERM or SIGHUP, and end it then.

    :raises CannotStart: it ended by itself, or is not ready in time.
    :raises StoppedElsewhere: somebody stopped it.
    :raises Interrupted: by a signal, before it was ready.
    """
    model = ModelTrouble(house.logs / "worker-1.log")
    guard, leash = _launch(house)
    try:
        _wait_until_ready(house, guard, model)
        if detach:
            os.write(leash, b".")  # from here on it lives without us
    except BaseException:
        _end(guard)
        raise
    if detach:
        _print_addresses(house, detached=True)
        return
    try:
        _print_addresses(house, detached=False)
        if guard.wait() == 0:
            raise StoppedElsewhere
        raise CannotStart(f"it has ended; see {house.logs}")
    except Interrupted:
        _end(guard)
        _console.print("Stopped.")


def _launch(house: House) -> "tuple[subprocess.Popen[bytes], int]":
    """Start the guard on a leash.

    :returns: it, and the descriptor that holds it: when that is closed, by whatever end of this process, the guard stops
        everything; a byte written to it lets the guard go.
    """
    house.tell(None)  # what an earlier start said
    theirs, ours = os.pipe()
    command = [sys.executable, "-m", "scripts.local.watchdog", "--leash", str(theirs)]
    command += ["--data", str(house.data), "--port", str(house.port), "--workers", str(house.workers)]
    with (house.logs / "guard.log").open("ab") as log:
        guard = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs],
            start_new_session=True,  # Ctrl-C is for this process, which passes it on in order
        )
    os.close(theirs)
    return guard, ours


def _wait_until_ready(house: House, guard: "subprocess.Popen[bytes]", model: ModelTrouble) -> None:
    """Show what it waits for, until ``/readyz`` says 200.

    :raises CannotStart: it ended, or is not ready in time.
    :raises StoppedElsewhere: somebody stopped it.
    """
    began = time.monotonic()
    longest = 0.0
    """The longest wait for one living server so far. That is no reason to give up: it works on its data."""
    with _console.status("Starting ...") as line:
        shown = ""
        while (taken := time.monotonic() - began) < READY_LIMIT_S + longest:
            if guard.poll() is not None:
                raise _ended(house, guard)
            missing = readiness(_url(house))
            if missing == {} and house.holder() == guard.pid:  # and not that of a start beside this one
                _console.print(f"Ready after {taken:.0f} s.")
                return
            if missing and "model" in missing and (trouble := model.said()):
                raise CannotStart(f"VISION_MODEL cannot be used: {trouble} ({model.log})")
            told = house.told()
            longest = max(longest, told.waited_s if told else 0.0)
            now = "Waiting for: " + ", ".join(sorted(missing)) if missing else told.text if told else "Starting the servers and the web front"
            line.update(f"{now} ... {taken:.0f} s")
            if now != shown and not _console.is_terminal:
                _console.print(f"{now} ...", soft_wrap=True)
            shown = now
            time.sleep(0.2)  # polling other processes; there is nothing to wait on
    why = "; ".join(f"{name}: {detail}" for name, detail in (readiness(_url(house)) or {}).items()) or shown
    raise CannotStart(f"it was not ready after {taken:.0f} s ({why}) and has been stopped; see {house.logs}, then run it again")


def _ended(house: House, guard: "subprocess.Popen[bytes]") -> Exception:
    if guard.returncode == 0:
        return StoppedElsewhere()
    if house.holder() is not None:  # two starts at once, and the other one was first
        return _runs_already(house)
    said = (house.logs / "guard.log").read_text(errors="replace").strip().rpartition("\n")[2]
    return CannotStart(f"it ended while starting ({said}); see {house.logs}")


def _listen_to_signals() -> None:
    """Turn the signals that end this program into ``Interrupted``; what the caller ignores (nohup) stays ignored."""
    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:  # the terminal is gone, and writing to it would fail in the middle of the stop
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in terminals:
                os.dup2(nowhere, descriptor)
            os.close(nowhere)
        raise Interrupted(signum)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:
            signal.signal(name, interrupt)


def _end(guard: "subprocess.Popen[bytes]") -> None:
    """Stop everything in order; at once when Ctrl-C comes again."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # a closed terminal hangs up twice: the shell does, and the kernel
    if guard.poll() is not None:
        return
    guard.terminate()
    try:
        with _console.status("Stopping: web, workers, sweep, then the servers (Ctrl-C again ends them at once) ..."):
            guard.wait(STOP_LIMIT_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        guard.kill()  # the kernel ends the rest
        guard.wait(STOP_LIMIT_S)


def _print_addresses(house: House, *, detached: bool) -> None:
    print(f"Shelfsight runs at  {_url(house)}/")
    print(f"API                 {_url(house)}/docs")
    print(f"Upload              scripts/upload FOLDER --url {_url(house)} --store NAME")
    suffix = "" if house.data == DEFAULT_DATA else f" --data {house.data}"
    print(f"State, stop         scripts/status{suffix}, " + (f"scripts/stop{suffix}" if detached else "Ctrl-C"), flush=True)


if __name__ == "__main__":
    main()
