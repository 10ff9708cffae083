"""``python -m scripts.local.watchdog``: run supervisord, which runs every other process of an installation.

The watchdog locks the data folder, starts supervisord, and starts the servers before the processes that need them. If
supervisord is killed, all its children end too, and the watchdog starts everything again. On SIGTERM or SIGINT, the
watchdog stops the installation cleanly. It does the same if the ``scripts/start`` that started it ends without
detaching it (see ``parent_pipe``).
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, Final
from xmlrpc.client import Error, Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from scripts.local import parent_pipe
from scripts.local.exec_child import PARENT_PID
from scripts.local.installation import ROOT, Installation, Stage
from scripts.local.servers import mongod, redis_server
from scripts.local.servers.credentials import create_credentials
from scripts.local.servers.errors import Unusable
from scripts.local.supervisor_config import SERVERS, config_text, config_variables
from shared.settings import Mongo

_STOP_S: Final = 60
_LOCK_S: Final = 2.0
"""Time limit in seconds for acquiring the lock. A process that only checks whether it is free holds it for a moment."""
_RPC_S: Final = 10.0
_PID_S: Final = 60.0
"""Time limit in seconds for a running supervisor to start a server."""
_DOWN: Final = {"STOPPED", "EXITED", "FATAL"}
_CALL_ERRORS: Final = (OSError, Error, HTTPException)
"""Errors that are raised by calls to a supervisor that is not running or is killed during the call."""


class StopRequested(Exception):
    """A signal asked this process to stop."""


class Watchdog:
    """Keeps the processes of one installation running. If the supervisor ends, it starts the supervisor again."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._supervisor: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Keep the installation running until SIGTERM or SIGINT, then stop it cleanly."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._request_stop)
        try:
            while True:
                try:
                    self._start().wait()
                    _log("the supervisor has ended; starting it again")
                except (Unusable, *_CALL_ERRORS, subprocess.SubprocessError) as error:
                    self._retry(error)
                time.sleep(0.5)  # wait until the supervisor's children, which end with it, have ended
        except StopRequested:
            self._stop()

    def _start(self) -> "subprocess.Popen[bytes]":
        """Start a supervisor and all its processes.

        :raises Unusable, OSError, Error, SubprocessError: when a process did not start.
        """
        installation = self._installation
        installation.remove_socket()
        create_credentials(installation.secrets)
        ports = installation.assign_ports()
        os.environ.update(installation.environment(ports) | {PARENT_PID: str(os.getpid())})
        programs = installation.choose_programs(_log)
        installation.save_programs(programs)
        if "redis" in programs and (aside := redis_server.set_aside_unreadable(installation.data / "redis", installation.logs / "redis.log")):
            _log(f"{programs['redis'].name} could not read its data; it starts empty, and the data was moved to {aside}. No work is lost, because the data contains none")
        commands = installation.commands(ports, programs)
        config = installation.run / "supervisord.conf"
        config.write_text(config_text(list(commands)))
        # -P keeps files in the data folder, which is the working directory, from being imported as modules.
        python = [sys.executable, "-P", "-m"]
        command = [*python, "scripts.local.exec_child", "supervisor", str(installation.run / "supervisor.pid"), "--"]
        self._supervisor = subprocess.Popen(
            [*command, *python, "supervisor.supervisord", "-c", str(config)],
            cwd=installation.data,
            env=os.environ | config_variables(installation, commands),
        )
        self._start_processes(list(commands), ports)
        _log("all processes are started")
        installation.write_stage(None)
        return self._supervisor

    def _retry(self, error: Exception) -> None:
        _log(f"start failed: {error}; trying again")
        with contextlib.suppress(OSError):  # writing fails if the disk is full; the error is also in the log
            self._installation.write_stage(Stage(f"Trying again: {error}"))
        if self._supervisor is not None:
            self._supervisor.kill()
            self._supervisor.wait()
        time.sleep(1)  # a start that fails immediately must not keep a core busy

    def _start_processes(self, names: list[str], ports: dict[str, int]) -> None:
        installation = self._installation
        if installation.embedded_mongodb:
            roles = mongod.service_roles(Mongo().database)
            self._wait_for("mongod", "MongoDB", lambda pid: mongod.wait_until_primary(ports["mongod"], pid, installation.credentials(), roles))
        if installation.embedded_redis:
            self._wait_for("redis", "Redis", lambda pid: redis_server.wait_until_ready(ports["redis"], pid, installation.credentials()))
        self._migrate()
        rpc = supervisor_proxy(installation)
        for name in names:
            if name not in SERVERS:
                rpc.supervisor.startProcess(name, False)  # noqa: FBT003 -- the remote call takes positional arguments only

    def _migrate(self) -> None:
        """Run the migrations, which create the indexes, too; there is no time limit while the command runs.

        No process of an older version uses this installation's own MongoDB, so the update is finished, too.

        :raises Unusable: when the command failed.
        """
        began, last = time.monotonic(), ""
        self._installation.write_stage(Stage("Updating the database", began))
        command = [sys.executable, "-m", "scripts.administration", "migrate"] + ["--finish"] * self._installation.embedded_mongodb
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None  # noqa: S101 -- stdout is a pipe
            try:
                for line in process.stdout:
                    last = line.strip()
                    _log(last)
                    self._installation.write_stage(Stage(f"Updating the database: {last}", began))
            except BaseException:  # such as StopRequested; on SIGTERM, the command releases its lock
                process.terminate()
                raise
        if process.returncode:
            raise Unusable(f"updating the database failed: {last}")

    def _wait_for(self, name: str, title: str, ready: Callable[[int], None]) -> None:
        """Wait until a server is ready; there is no time limit while its process runs.

        Log the wait, and save it as the current stage.

        :raises Unusable: when the process of the server does not exist, or ended.
        """
        pid = self._pid(name)
        began = time.monotonic()
        _log(f"waiting for {title} (pid {pid}) to be ready, without a time limit while it runs; see {self._installation.logs}/{name}.log")
        self._installation.write_stage(Stage(f"Waiting for {title} (pid {pid}); after a crash, it first recovers its data", began))
        ready(pid)
        _log(f"{title} is ready after {time.monotonic() - began:.0f} s")

    def _pid(self, name: str) -> int:
        """Wait until the supervisor has started a process, and return the pid of the process.

        :raises Unusable: when the supervisor ended, or did not start the process within ``_PID_S`` seconds.
        """
        until = time.monotonic() + _PID_S
        while time.monotonic() < until:
            if self._supervisor is None or self._supervisor.poll() is not None:
                raise Unusable("the supervisor ended while starting")
            with contextlib.suppress(*_CALL_ERRORS):
                info: Any = supervisor_proxy(self._installation).supervisor.getProcessInfo(name)
                if info["pid"]:
                    return int(info["pid"])
            time.sleep(0.1)  # poll, because the supervisor sends no notification
        raise Unusable(f"{name} was not started; see {self._installation.logs}/supervisor.log.")

    def _stop(self) -> None:
        """First stop the processes that use the servers (MongoDB and Redis), then stop the servers."""
        if self._supervisor is not None and self._supervisor.poll() is None:
            with contextlib.suppress(*_CALL_ERRORS):
                self._stop_clients()
            self._supervisor.terminate()
            try:
                self._supervisor.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._supervisor.kill()
        self._installation.write_stage(None)
        self._installation.remove_process_files(".pid")
        with contextlib.suppress(OSError, Unusable):  # another program's file has the name of the socket
            self._installation.remove_socket()

    def _stop_clients(self) -> None:
        """Stop all processes except MongoDB and Redis.

        Return after ``_STOP_S`` seconds even if some processes are still running.

        :raises OSError, Error, HTTPException: when the supervisor does not respond.
        """
        rpc = supervisor_proxy(self._installation)
        until = time.monotonic() + _STOP_S
        while time.monotonic() < until:
            states: Any = rpc.supervisor.getAllProcessInfo()
            running = [state for state in states if state["name"] not in SERVERS and state["statename"] not in _DOWN]
            if not running:
                return
            for state in running:
                if state["statename"] != "STOPPING":
                    with contextlib.suppress(Fault):  # the process ended by itself; if it is restarted, the next round stops it
                        rpc.supervisor.stopProcess(state["name"], False)  # noqa: FBT003 -- the remote call takes positional arguments only
            time.sleep(0.2)  # poll, because other processes send no notification

    def _request_stop(self, _signal: int, _frame: FrameType | None) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)  # a second signal must not interrupt the stop
        raise StopRequested


def _log(message: str) -> None:
    """Write a line with the current time to the watchdog's log (guard.log).

    The times show which step makes a start slow.
    """
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, flush=True)


def supervisor_proxy(installation: Installation) -> Any:
    """Return an XML-RPC client for an installation's supervisor."""
    return ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{installation.socket}"))


def main() -> None:
    """Run the installation that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m scripts.local.watchdog", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--parent-pipe", type=int, help="descriptor of the read end of a pipe; the watchdog stops when the write end is closed")
    arguments = parser.parse_args()
    socket.setdefaulttimeout(_RPC_S)  # the supervisor's client sets no timeout, and a supervisor that hangs must not block a stop
    installation = Installation(arguments.data, arguments.port, arguments.workers)
    try:
        installation.prepare()
        lock = installation.acquire_lock(_LOCK_S)
        if lock is None:
            sys.exit("another process holds the lock of this data folder")
        with lock:
            installation.save()
            installation.remove_process_files(".starts")
            (installation.run / "guard.pid").write_text(f"{os.getpid()}\n")
            watchdog = Watchdog(installation)
            if arguments.parent_pipe is not None:
                parent_pipe.stop_when_closed(arguments.parent_pipe)
            watchdog.run()
    except OSError as error:
        sys.exit(f"{error.filename or installation.data}: {error.strerror or error}")


if __name__ == "__main__":
    main()
