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
from urllib.parse import urlsplit

from rich.console import Console

from scripts.local import embedded
from scripts.local.child import write_whole
from scripts.local.data import DEFAULT, ROOT, Data, Stack
from scripts.local.guardian import LOCKED

READY_LIMIT_S: Final = 240.0
"""The first start of a worker reads a few hundred MB of libraries; a slow disk takes a while."""
STOP_LIMIT_S: Final = 180.0
_console = Console(stderr=True, highlight=False)


class CannotStart(Exception):
    """One line for the user, with its remedy."""


def main() -> None:
    """Start, wait, print the addresses; in the foreground stay until Ctrl-C."""
    asked = _arguments()
    data = Data(asked.data)
    try:
        data.make()
        stack = _plan(data, asked.port, asked.workers)
        data.keep(stack)
        guardian = _launch(data, leash=not asked.detach)
        if asked.detach:
            _wait_until_ready(data, stack, guardian)
            _print_addresses(data, stack, detached=True)
        else:
            _stay(data, stack, guardian)
    except (CannotStart, embedded.Unusable, TimeoutError) as error:
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
    parser.add_argument("--data", type=Path, default=DEFAULT, metavar="DIR", help="where everything is kept (default: data)")
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


def _plan(data: Data, port: int, workers: int | None) -> Stack:
    """Choose ports and check what the machine lacks.

    :raises CannotStart: it runs already, or the web port is taken.
    """
    if data.is_held():
        raise _runs_already(data)
    if ended := data.end_leftovers():
        _console.print(f"Ended {ended} processes that a crash had left behind.")
    if not embedded.is_free(port):
        raise CannotStart(f"port {port} is taken; choose another one with --port, or end what listens there")
    before = data.stack()
    mongo_url, redis_url = os.environ.get("MONGODB_URL"), os.environ.get("REDIS_URL")
    mongod_port = 0 if mongo_url else _mongod_port(before)
    redis_port = 0 if redis_url else _keep_or_choose(before.redis_port if before else 0)
    return Stack(
        port=port,
        workers=workers or len(os.sched_getaffinity(0)),
        mongod_port=mongod_port,
        redis_port=redis_port,
        mongo_url=mongo_url or embedded.mongo_url(mongod_port),
        redis_url=redis_url or embedded.redis_url(redis_port),
    )


def _mongod_port(before: Stack | None) -> int:
    embedded.check_mongod()
    return _keep_or_choose(before.mongod_port if before else 0)  # a replica set remembers its port


def _keep_or_choose(port: int) -> int:
    return port if port and embedded.is_free(port) else embedded.free_port()


def _runs_already(data: Data) -> CannotStart:
    stack = data.stack()
    where = f" at {stack.url}" if stack else ""
    return CannotStart(f"it runs already over {data.root}{where}; see scripts/status, end it with scripts/stop, or choose another --data")


def _launch(data: Data, *, leash: bool) -> "subprocess.Popen[bytes]":
    write_whole(data.run / "start.pid", str(os.getpid()))
    command = [sys.executable, "-m", "scripts.local.guardian", "--data", str(data.root)]
    with (data.log / "guardian.log").open("ab") as log:
        return subprocess.Popen(
            command + (["--leash"] if leash else []),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on in order
        )


def _wait_until_ready(data: Data, stack: Stack, guardian: "subprocess.Popen[bytes]") -> None:
    """Show what it waits for, until ``/readyz`` says 200.

    :raises CannotStart: it ended, or is not ready in time.
    """
    began = time.monotonic()
    with _console.status("Starting ...") as line:
        shown = ""
        while time.monotonic() - began < READY_LIMIT_S:
            if (code := guardian.poll()) is not None:
                raise _runs_already(data) if code == LOCKED else CannotStart(f"it ended while starting; see {data.log}")
            missing = readiness(stack.url) if data.prepared.exists() else None
            if missing == {}:
                _console.print(f"Ready after {time.monotonic() - began:.0f} s.")
                return
            now = _stage(data, missing)
            if now != shown:
                line.update(now)
                if not _console.is_terminal:
                    _console.print(now)
                shown = now
            time.sleep(0.2)  # polling other processes; there is nothing to wait on
    why = "; ".join(f"{name}: {detail}" for name, detail in (readiness(stack.url) or {}).items()) or shown
    raise CannotStart(f"it is not ready after {READY_LIMIT_S:.0f} s ({why}); scripts/status and {data.log} say more")


def _stage(data: Data, missing: dict[str, str] | None) -> str:
    if not data.prepared.exists():
        try:
            return f"Starting the database ... ({(data.run / 'trouble').read_text()})"
        except OSError:
            return "Starting the database ..."
    if missing is None:
        return "Starting the web front ..."
    return "Waiting for: " + ", ".join(sorted(missing))


def _stay(data: Data, stack: Stack, guardian: "subprocess.Popen[bytes]") -> None:
    """Keep the terminal until Ctrl-C or SIGTERM, then end everything in order."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _wait_until_ready(data, stack, guardian)
        _print_addresses(data, stack, detached=False)
        guardian.wait()
        raise CannotStart(f"it has ended; see {data.log}")
    except KeyboardInterrupt:
        pass
    finally:
        _end(guardian)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(guardian: "subprocess.Popen[bytes]") -> None:
    if guardian.poll() is not None:
        return
    guardian.terminate()
    try:
        with _console.status("Stopping: web, workers, sweep, then the servers (Ctrl-C again ends them at once) ..."):
            guardian.wait(STOP_LIMIT_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        guardian.kill()  # the kernel ends the rest
        guardian.wait(STOP_LIMIT_S)
    _console.print("Stopped.")


def _print_addresses(data: Data, stack: Stack, *, detached: bool) -> None:
    print(f"Shelfsight runs at  {stack.url}/")
    print(f"API                 {stack.url}/docs")
    print(f"Upload              scripts/upload FOLDER --url {stack.url} --store NAME")
    suffix = "" if data.root == DEFAULT else f" --data {data.root}"
    print(f"State, stop         scripts/status{suffix}, " + (f"scripts/stop{suffix}" if detached else "Ctrl-C"), flush=True)
    if not urlsplit(stack.mongo_url).hostname == embedded.LOOPBACK:
        print("MongoDB             the one of MONGODB_URL", flush=True)


if __name__ == "__main__":
    main()
