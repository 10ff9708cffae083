"""``scripts/start``: start Shelfsight on this machine and wait until it is ready."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from scripts.local import access_modes, loopback, messages, parent_pipe, start_checks
from scripts.local.installation import DEFAULT_DATA, ROOT, Installation, data_folder
from scripts.local.model_errors import ModelErrorLog
from scripts.local.servers.errors import Unusable
from scripts.local.start_checks import CannotStart

READY_LIMIT_S: Final = 240.0
"""Time limit in seconds. It is long, because the first start of a worker reads a few hundred MB of libraries, perhaps
from a slow disk. The time in which a server recovers its data does not count."""
STOP_LIMIT_S: Final = 180.0
_console = Console(stderr=True, highlight=False, markup=False)


class StoppedExternally(Exception):
    """The watchdog was stopped cleanly by ``scripts/stop`` or by a signal from another process."""


class Interrupted(KeyboardInterrupt):
    """SIGINT (Ctrl-C), SIGTERM or SIGHUP was received; the argument is the signal's number."""


def main() -> None:
    """Start Shelfsight, wait until it is ready, and print the addresses; in the foreground, run until Ctrl-C.

    The exit code is 0 if Shelfsight became ready (in the foreground: and was stopped cleanly), 1 if it did not start,
    and 128 + the signal number if a signal interrupted the start. If the exit code is not 0, no process is left
    running.
    """
    arguments = _parse_arguments()
    messages.print_any_text()
    data = data_folder(arguments.data)
    _install_signal_handlers()
    try:
        for sentence in access_modes.keep_modes(data):
            _console.print(sentence, soft_wrap=True)
        if keys_file := os.environ.get("SIGNING_KEYS_FILE"):
            os.environ["SIGNING_KEYS_FILE"] = str(Path(keys_file).absolute())  # the processes have another working directory
        installation = Installation(data, arguments.port, arguments.workers or len(os.sched_getaffinity(0)))
        start_checks.check(installation)
        _start(installation, detach=arguments.detach)
    except (CannotStart, Unusable) as error:
        sys.exit(f"error: {error}")
    except StoppedExternally:
        _console.print("Stopped by another process (scripts/stop or a signal).")
        sys.exit(1 if arguments.detach else 0)
    except Interrupted as interrupted:
        _console.print("error: interrupted before Shelfsight was ready; no process is left running")
        sys.exit(128 + interrupted.args[0])
    except PermissionError as error:
        sys.exit(f"error: {error.filename or data} belongs to another user; choose another folder with --data")
    except OSError as error:
        sys.exit(f"error: {error.filename or data}: {error.strerror or error}; free disk space, or choose another folder with --data")


def failed_checks(url: str) -> dict[str, str] | None:
    """Request ``/readyz`` from the web front, and return which of its checks have failed.

    :returns: the names of the failed checks and the reason for each. The dictionary is empty if everything is ready.
        None is returned if the web front does not respond.
    """
    try:
        with loopback.open_url(f"{url}/readyz", timeout_s=5) as response:
            body: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        try:
            body = json.load(error)
        except ValueError:
            return None
    except (OSError, ValueError, HTTPException):
        return None
    return {name: str(check["detail"]) for name, check in body.get("checks", {}).items() if not check["ok"]}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/start",
        description="Start Shelfsight on this machine and wait until it is ready.",
        epilog="Everybody on this machine can use the service without credentials, unless it is started with SHELFSIGHT_ENV=production or ACCESS=on (see docs/accounts.md). "
        "For a new data folder, MongoDB is downloaded from its makers if there is none on PATH; MONGOD_DOWNLOAD=off refuses this (see docs/security.md).",
    )
    parser.add_argument("--detach", action="store_true", help="return when Shelfsight is ready, and keep it running until scripts/stop stops it")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder for all data, logs and pid files (default: data)")
    parser.add_argument("--port", type=_integer(1, 65535), default=5000, metavar="N", help="port of the web front (default: 5000)")
    parser.add_argument("--workers", type=_integer(1, 256), metavar="N", help="number of worker processes (default: one for each core)")
    return parser.parse_args()


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"must be {minimum} to {maximum}")
        return value

    return integer


def _start(installation: Installation, *, detach: bool) -> None:
    """Start all processes; in the foreground, run until Ctrl-C, SIGTERM or SIGHUP, then stop all processes.

    :raises CannotStart: when the watchdog ended by itself, or the web front is not ready in time.
    :raises StoppedExternally: when another process stopped the watchdog.
    :raises Interrupted: when a signal arrived before Shelfsight was ready.
    """
    model_errors = ModelErrorLog(installation.logs / "worker-1.log")
    watchdog, pipe = _start_watchdog(installation)
    try:
        _wait_until_ready(installation, watchdog, model_errors)
        if detach:
            parent_pipe.detach(pipe)
    except BaseException:
        _stop(watchdog)
        raise
    if detach:
        _print_addresses(installation, detached=True)
        return
    try:
        _print_addresses(installation, detached=False)
        if watchdog.wait() == 0:
            raise StoppedExternally
        raise CannotStart(f"the watchdog has ended unexpectedly; see {installation.logs}")
    except Interrupted:
        _stop(watchdog)
        _console.print("Stopped.")


def _start_watchdog(installation: Installation) -> "tuple[subprocess.Popen[bytes], int]":
    """Start the watchdog.

    :returns: the process of the watchdog, and the write end of the parent pipe.
    """
    installation.write_stage(None)  # removes the stage of an earlier start
    read_end, write_end = parent_pipe.open_pipe()
    command = [sys.executable, "-m", "scripts.local.watchdog", "--parent-pipe", str(read_end)]
    command += ["--data", str(installation.data), "--port", str(installation.port), "--workers", str(installation.workers)]
    with (installation.logs / "guard.log").open("ab") as log:
        watchdog = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[read_end],
            start_new_session=True,  # the terminal must send Ctrl-C only to this process, which then stops the watchdog cleanly
        )
    os.close(read_end)
    return watchdog, write_end


def _wait_until_ready(installation: Installation, watchdog: "subprocess.Popen[bytes]", model_errors: ModelErrorLog) -> None:
    """Wait until ``/readyz`` responds with 200; meanwhile, show the current step.

    :raises CannotStart: when the watchdog ended, or the web front is not ready in time.
    :raises StoppedExternally: when another process stopped the watchdog.
    """
    began = time.monotonic()
    longest_wait = 0.0
    """The longest time in seconds that the start has waited for one running server. It extends the time limit,
    because the server recovers its data in this time."""
    with _console.status("Starting ...") as line:
        shown = ""
        while (elapsed := time.monotonic() - began) < READY_LIMIT_S + longest_wait:
            if watchdog.poll() is not None:
                raise _reason_of_end(installation, watchdog)
            failed = failed_checks(installation.url)
            if failed == {} and installation.find_lock_holder() == watchdog.pid:  # the response may come from a concurrent start
                _console.print(f"Ready after {elapsed:.0f} s.")
                return
            if failed and "model" in failed and (error := model_errors.read_last()):
                raise CannotStart(f"VISION_MODEL cannot be used: {error} ({model_errors.log})")
            stage = installation.read_stage()
            longest_wait = max(longest_wait, stage.waited_s if stage else 0.0)
            step = "Waiting for: " + ", ".join(sorted(failed)) if failed else stage.text if stage else "Starting the servers and the web front"
            line.update(escape(f"{step} ... {elapsed:.0f} s"))
            if step != shown and not _console.is_terminal:
                _console.print(f"{step} ...", soft_wrap=True)
            shown = step
            time.sleep(0.2)  # poll, because other processes send no notification
    why = "; ".join(f"{name}: {detail}" for name, detail in (failed_checks(installation.url) or {}).items()) or shown
    raise CannotStart(f"Shelfsight was not ready after {elapsed:.0f} s ({why}) and has been stopped; see {installation.logs}, then start it again")


def _reason_of_end(installation: Installation, watchdog: "subprocess.Popen[bytes]") -> Exception:
    if watchdog.returncode == 0:
        return StoppedExternally()
    if installation.find_lock_holder() is not None:  # a concurrent start has acquired the lock
        return start_checks.already_running(installation)
    last_line = (installation.logs / "guard.log").read_text(errors="replace").strip().rpartition("\n")[2]
    return CannotStart(f"the watchdog ended while starting ({last_line}); see {installation.logs}")


def _install_signal_handlers() -> None:
    """Raise ``Interrupted`` on the signals that end this program.

    A signal that was already ignored when this program was started stays ignored, for example SIGHUP under nohup.
    """
    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:  # the terminal is closed; a write to it would fail during the stop
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in terminals:
                os.dup2(null, descriptor)
            os.close(null)
        raise Interrupted(signum)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:
            signal.signal(name, interrupt)


def _stop(watchdog: "subprocess.Popen[bytes]") -> None:
    """Stop all processes cleanly. Kill them if Ctrl-C is pressed meanwhile, or after ``STOP_LIMIT_S`` seconds."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # when a terminal is closed, both the shell and the kernel send SIGHUP
    if watchdog.poll() is not None:
        return
    watchdog.terminate()
    try:
        with _console.status("Stopping: web, workers, sweep, then the servers (press Ctrl-C again to kill them) ..."):
            watchdog.wait(STOP_LIMIT_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        watchdog.kill()  # the kernel then kills the watchdog's children (see exec_child)
        watchdog.wait(STOP_LIMIT_S)


def _print_addresses(installation: Installation, *, detached: bool) -> None:
    key = ", with a key in SHELFSIGHT_API_KEY (scripts/admin create-key --help)" if installation.needs_credentials else ""
    print(f"Shelfsight runs at  {installation.url}/")
    print(f"API                 {installation.url}/docs")
    print(f"Upload              scripts/upload FOLDER --url {installation.url} --store NAME{key}")
    print(f"Status              {messages.command('status', installation.data)}")
    print(f"Stop                {messages.command('stop', installation.data) if detached else 'Ctrl-C'}")
    print(f"Access              {access_modes.describe(installation)}", flush=True)
    if installation.needs_credentials and access_modes.has_administrator(installation) is False:
        print(f"First administrator {access_modes.first_administrator_command(installation)}", flush=True)


if __name__ == "__main__":
    main()
