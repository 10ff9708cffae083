"""``python -m scripts.local.watchdog``: keeps the supervisor, which keeps everything else.

It holds the data folder's lock, starts supervisord, brings the servers up before what needs them, and begins again when
supervisord is killed (its children die with it). When it is told to stop, it stops the house in order; so it does when the
``scripts/start`` that holds its leash ends without having let it go.
"""

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, Final
from xmlrpc.client import Error, Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from scripts.local import embedded_servers
from scripts.local.exec_child import PARENT
from scripts.local.installation import ROOT, House, Stage

_STOP_S: Final = 60
_LOCK_S: Final = 2.0
"""A process that only tries the lock holds it for a moment."""
_RPC_S: Final = 10.0
_PID_S: Final = 60.0
"""Of a supervisor that lives, for starting a server."""
_SERVERS: Final = ("mongod", "redis")
_DOWN: Final = {"STOPPED", "EXITED", "FATAL"}
_INDEXES_S: Final = 120
_NO_ANSWER: Final = (OSError, Error, HTTPException)
"""What a call to a supervisor raises that is not there, or is killed meanwhile."""


class Stopped(Exception):
    """Somebody asked us to stop."""


def configuration(house: House, ports: dict[str, int]) -> str:
    """Write supervisord's configuration.

    ``startsecs=0`` with ``autorestart`` never ends in FATAL, however often a process is killed; ``child`` keeps the pace.
    """
    parts = [
        (
            f"[supervisord]\nlogfile={house.logs}/supervisor.log\nlogfile_maxbytes=10MB\nlogfile_backups=1\n"
            f"pidfile={house.run}/supervisor.pid\nnodaemon=true\nsilent=true\nminfds=1024\n"
        ),
        f"[unix_http_server]\nfile={house.socket}\nchmod=0600\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
    ]
    for place, (name, command) in enumerate(house.commands(ports).items()):
        wrapped = [sys.executable, "-m", "scripts.local.exec_child", name, f"{house.run}/{name}.pid", "--", *command]
        line = " ".join(shlex.quote(part) for part in wrapped).replace("%", "%%")
        parts.append(
            f"[program:{name}]\ncommand={line}\ndirectory={ROOT}\npriority={place}\n"
            f"autostart={'true' if name in _SERVERS else 'false'}\nautorestart=true\nstartsecs=0\n"
            f"stopwaitsecs=30\nstopasgroup=false\nkillasgroup=false\nredirect_stderr=true\n"
            f"stdout_logfile={house.logs}/{name}.log\nstdout_logfile_maxbytes=10MB\nstdout_logfile_backups=1\n"
        )
    return "\n".join(parts)


class Guard:
    """Keeps one house."""

    def __init__(self, house: House) -> None:
        """Nothing runs yet."""
        self._house = house
        self._supervisor: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Keep the house until told to stop."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop_asked)
        try:
            while True:
                try:
                    self._begin().wait()
                    _say("the supervisor has ended; it is started again")
                except (embedded_servers.Unusable, *_NO_ANSWER, subprocess.SubprocessError) as error:
                    self._again(error)
                time.sleep(0.5)  # let the children that die with it be gone
        except Stopped:
            self._end()

    def _begin(self) -> "subprocess.Popen[bytes]":
        """Start a supervisor and everything under it.

        :raises Unusable, OSError, Error, SubprocessError: not everything came up.
        """
        house = self._house
        house.socket.unlink(missing_ok=True)
        ports = house.ports()
        os.environ.update(house.environment(ports) | {PARENT: str(os.getpid())})
        config = house.run / "supervisord.conf"
        config.write_text(configuration(house, ports))
        command = [sys.executable, "-m", "scripts.local.exec_child", "supervisor", str(house.run / "supervisor.pid"), "--"]
        self._supervisor = subprocess.Popen([*command, sys.executable, "-m", "supervisor.supervisord", "-c", str(config)], cwd=ROOT)
        self._bring_up(ports)
        _say("everything is started")
        house.tell(None)
        return self._supervisor

    def _again(self, error: Exception) -> None:
        _say(f"not everything came up: {error}; trying again")
        with contextlib.suppress(OSError):  # a full disk, perhaps: the log has it, and it may pass
            self._house.tell(Stage(f"Trying again: {error}"))
        if self._supervisor is not None:
            self._supervisor.kill()
            self._supervisor.wait()
        time.sleep(1)  # what fails at once must not keep a core busy

    def _bring_up(self, ports: dict[str, int]) -> None:
        house = self._house
        if house.own_mongo:
            self._wait_for("mongod", "MongoDB", lambda pid: embedded_servers.wait_for_mongod(ports["mongod"], pid))
        if house.own_redis:
            self._wait_for("redis", "Redis", lambda pid: embedded_servers.wait_for_redis(ports["redis"], pid))
        house.tell(Stage("Making the indexes of the database"))
        if subprocess.run([sys.executable, "-m", "shared.storage.schema"], cwd=ROOT, check=False, timeout=_INDEXES_S).returncode:
            where = "see mongod.log" if house.own_mongo else "does the MongoDB of MONGODB_URL answer?"
            raise embedded_servers.Unusable(f"the indexes of the database were not made: {where}")
        rpc = proxy(house)
        for name in house.commands(ports):
            if name not in _SERVERS:
                rpc.supervisor.startProcess(name, False)  # noqa: FBT003 -- the remote call takes no names

    def _wait_for(self, name: str, title: str, ready: Callable[[int], None]) -> None:
        """Wait for a server for as long as its process lives, and say so.

        :raises Unusable: there is no such process, or it ended.
        """
        pid = self._pid(name)
        began = time.monotonic()
        _say(f"waiting for {title} (pid {pid}) to be ready, for as long as it lives; {self._house.logs}/{name}.log says more")
        self._house.tell(Stage(f"Waiting for {title} (pid {pid}); after a crash it recovers its data first", began))
        ready(pid)
        _say(f"{title} is ready after {time.monotonic() - began:.0f} s")

    def _pid(self, name: str) -> int:
        """Wait for a process' pid as the supervisor knows it.

        :raises Unusable: the supervisor ended, or has not started that process for long.
        """
        until = time.monotonic() + _PID_S
        while time.monotonic() < until:
            if self._supervisor is None or self._supervisor.poll() is not None:
                raise embedded_servers.Unusable("the supervisor ended while starting")
            with contextlib.suppress(*_NO_ANSWER):
                info: Any = proxy(self._house).supervisor.getProcessInfo(name)
                if info["pid"]:
                    return int(info["pid"])
            time.sleep(0.1)  # polling: the supervisor tells nobody
        raise embedded_servers.Unusable(f"{name} was not started; see {self._house.logs}/supervisor.log.")

    def _end(self) -> None:
        """Stop what needs the servers first, then the servers."""
        if self._supervisor is not None and self._supervisor.poll() is None:
            with contextlib.suppress(*_NO_ANSWER):
                self._stop_clients()
            self._supervisor.terminate()
            try:
                self._supervisor.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._supervisor.kill()
        self._house.tell(None)
        for pidfile in self._house.run.glob("*.pid"):
            pidfile.unlink(missing_ok=True)
        self._house.socket.unlink(missing_ok=True)

    def _stop_clients(self) -> None:
        """Stop all but the servers; give up after a while.

        :raises OSError, Error, HTTPException: the supervisor does not answer.
        """
        rpc = proxy(self._house)
        until = time.monotonic() + _STOP_S
        while time.monotonic() < until:
            states: Any = rpc.supervisor.getAllProcessInfo()
            up = [one for one in states if one["name"] not in _SERVERS and one["statename"] not in _DOWN]
            if not up:
                return
            for one in up:
                if one["statename"] != "STOPPING":
                    with contextlib.suppress(Fault):  # it ended by itself; when it is started again, the next round ends it
                        rpc.supervisor.stopProcess(one["name"], False)  # noqa: FBT003 -- the remote call takes no names
            time.sleep(0.2)  # polling another process; there is nothing to wait on

    def _stop_asked(self, _signal: int, _frame: FrameType | None) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)  # asked twice, it must not be torn out of stopping
        raise Stopped


def _say(what: str) -> None:
    """Write a line to the guard's log, with its time: a slow start is read from these."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), what, flush=True)


def heed(leash: int) -> None:
    """Ask this process to stop when the other end of a pipe is closed without a word, whatever its holder died of.

    :param leash: descriptor of the end to read from; one byte through it means that the holder lets go.
    """

    def listen() -> None:
        let_go = os.read(leash, 1)
        os.close(leash)
        if not let_go:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, name="leash", daemon=True).start()


def proxy(house: House) -> Any:
    """Talk to the supervisor of a house."""
    return ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{house.socket}"))


def main() -> None:
    """Guard the house that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m scripts.local.watchdog", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--leash", type=int, help="descriptor of a pipe: stop when its other end is closed")
    given = parser.parse_args()
    socket.setdefaulttimeout(_RPC_S)  # the supervisor's client sets none, and a frozen supervisor must not hold up a stop
    house = House(given.data, given.port, given.workers)
    try:
        house.prepare()
        lock = house.lock(_LOCK_S)
        if lock is None:
            sys.exit("another process holds this data folder")
        with lock:
            house.remember()
            for count in house.run.glob("*.starts"):
                count.unlink()
            (house.run / "guard.pid").write_text(f"{os.getpid()}\n")
            guard = Guard(house)
            if given.leash is not None:
                heed(given.leash)
            guard.run()
    except OSError as error:
        sys.exit(f"{error.filename or house.data}: {error.strerror or error}")


if __name__ == "__main__":
    main()
