"""``scripts/start``: start Shelfsight on this machine and wait until it is ready."""

import argparse
import json
import os
import re
import shutil
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

from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape

from scripts.local import access_modes, loopback, messages, parent_pipe
from scripts.local.installation import DEFAULT_DATA, ROOT, Installation, data_folder, load_installation
from scripts.local.model_errors import ModelErrorLog
from scripts.local.servers.credentials import check_permissions
from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import is_free
from scripts.local.signing_key_setup import check_signing_keys
from shared.accounts.signing_key_file import describe_exposure
from shared.settings import Access, Settings, explain

READY_LIMIT_S: Final = 240.0
"""Time limit in seconds. It is long, because the first start of a worker reads a few hundred MB of libraries, perhaps
from a slow disk. The time in which a server recovers its data does not count."""
STOP_LIMIT_S: Final = 180.0
_PORT_WAIT_S: Final = 15.0
_UNSUITABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that a path must not contain: control characters and line ends, which would break the lines of the logs,
and bytes that are not UTF-8 (Python reads them as surrogates), which neither MongoDB nor the settings accept."""
_console = Console(stderr=True, highlight=False, markup=False)


class CannotStart(Exception):
    """Shelfsight cannot be started; the message is one line with the cause and the remedy."""


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
        _check(installation)
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


def _check(installation: Installation) -> None:
    """Check, before any process is started, that nothing prevents the start.

    :raises CannotStart: when Shelfsight is already running, the web port is in use, a setting is invalid, or disk space
        is short.
    :raises Unusable: when this machine cannot run one of the embedded servers, or the file system has no permissions.
    :raises OSError: when the data folder cannot be created.
    """
    settings = read_settings()
    if fault := access_modes.check_host(installation.web_host):
        raise CannotStart(fault)
    _check_transport(settings)
    _check_paths(installation)
    if installation.find_lock_holder() is not None:
        raise _already_running(installation)
    used = load_installation(installation.data) is not None
    installation.prepare()
    until = time.monotonic() + _PORT_WAIT_S
    while (installation.run / "guard.pid").exists() and not is_free(installation.port, installation.web_host) and time.monotonic() < until:
        time.sleep(0.1)  # after a crash, the children of a killed process end within a second or two
    if not is_free(installation.port, installation.web_host):
        raise CannotStart(f"port {installation.port} is in use; choose another port with --port, or stop the program that listens on it")
    _check_disk(installation, settings.blobs.min_free_bytes, used=used)
    check_permissions(installation.data)
    if installation.signing_keys_file is not None and installation.signing_keys_file.exists():
        check_signing_keys(installation.signing_keys_file, is_production=settings.access.is_production)
        _warn_of_exposed_keys(installation)
    _choose_programs(installation)


def read_settings() -> Settings:
    """Return the settings that the processes will have.

    The keys that sign tokens are generated later, in the data folder. Unless the environment sets them, the name of a file
    stands for them here.

    :raises CannotStart: when a setting is invalid.
    """
    try:
        if os.environ.get("SIGNING_KEYS"):
            return Settings()
        given = os.environ.get("SIGNING_KEYS_FILE")
        access = Access(signing_keys_file=Path(given or "signing_keys"))
        if given:
            check_signing_keys(Path(given), is_production=access.is_production)
        return Settings(access=access)
    except (ValidationError, SettingsError) as error:
        raise CannotStart(explain(error)) from error
    except Unusable as error:
        raise CannotStart(str(error)) from error


def _check_transport(settings: Settings) -> None:
    """Warn if passwords and images travel without TLS, or if the proxy with TLS is not known.

    :raises CannotStart: when such a proxy is not known in production.
    """
    if settings.proxy_fault and settings.access.is_production:
        raise CannotStart(settings.proxy_fault)
    if settings.proxy_fault:
        _console.print(f"warning: {settings.proxy_fault}", soft_wrap=True)
    elif not settings.web.is_on_loopback and not settings.web.public_url.startswith("https://"):
        _console.print(
            f"warning: WEB_HOST={settings.web.host} is reached over plain HTTP, so everybody on the way can read passwords, keys and images. Put a proxy with TLS in front "
            "of it, and set PUBLIC_URL to the https address and WEB_TRUSTED_PROXIES to the addresses of the proxy",
            soft_wrap=True,
        )


def _warn_of_exposed_keys(installation: Installation) -> None:
    """Warn of a file of signing keys that other users can read. The start closes a file that it has created itself."""
    path = installation.signing_keys_file
    if path is not None and "SIGNING_KEYS_FILE" in installation.variables and (exposure := describe_exposure(path)):
        _console.print(f"warning: {exposure}", soft_wrap=True)


def _choose_programs(installation: Installation) -> None:
    """Check that the embedded servers run on this machine. If this takes a download, show its progress.

    :raises Unusable: when one of them does not.
    """
    with _console.status("Choosing the servers ...") as line:
        announced = False

        def show(received: int, total: int) -> None:
            nonlocal announced
            line.update(f"Downloading MongoDB ... {received >> 20}{f' of {total >> 20}' if total else ''} MB")
            if not announced and not _console.is_terminal:
                _console.print("Downloading MongoDB ...")
            announced = True

        installation.choose_programs(lambda sentence: _console.print(sentence, soft_wrap=True), show)


def _check_paths(installation: Installation) -> None:
    """Check that the data folder and the clone have suitable paths, and that the folder belongs to no other program.

    :raises CannotStart: when a path is unsuitable, or the folder ``run`` contains other files.
    """
    if _UNSUITABLE.search(str(installation.data)):
        raise CannotStart(f"the path {str(installation.data)!r} contains a control character, a line end, or bytes that are not UTF-8; choose another folder with --data")
    if _UNSUITABLE.search(str(ROOT)) or os.pathsep in str(ROOT):
        raise CannotStart(f"the path of this clone, {str(ROOT)!r}, contains a colon, a control character, a line end, or bytes that are not UTF-8; move the clone")
    foreign = installation.find_foreign_file()
    if foreign is not None:
        raise CannotStart(f"{foreign} belongs to another program; choose another folder with --data")


def _check_disk(installation: Installation, watermark: int, *, used: bool) -> None:
    """Check that there is enough disk space for uploads to be accepted.

    If the folder already holds data, Shelfsight is started even without enough space, so that the data can be viewed
    and deleted; a warning is printed.

    :raises CannotStart: when disk space is short for a new installation.
    """
    free = shutil.disk_usage(installation.data / "blobs").free
    if free >= watermark:
        return
    shortage = f"only {free / 1e9:.1f} GB are free under {installation.data}, and uploads are refused below {watermark / 1e9:.1f} GB"
    if not used:
        raise CannotStart(f"{shortage}; free disk space, choose another folder with --data, or lower BLOBS_MIN_FREE_BYTES")
    _console.print(f"warning: {shortage}; free disk space, delete batches, or lower BLOBS_MIN_FREE_BYTES", soft_wrap=True)


def _already_running(installation: Installation) -> CannotStart:
    running = load_installation(installation.data) or installation
    return CannotStart(
        f"Shelfsight is already running at {running.url} with the data folder {installation.data}; see {messages.command('status', installation.data)}, "
        f"stop it with {messages.command('stop', installation.data)}, or choose another folder with --data"
    )


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
        return _already_running(installation)
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
