"""``python -m scripts.local.guard``: keeps the supervisor, which keeps everything else.

It holds the data folder's lock, starts supervisord, brings the servers up before what needs them, and begins again when
supervisord is killed (its children die with it). When it is told to stop, it stops the house in order.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from scripts.local import embedded
from scripts.local.house import ROOT, House

_STOP_S: Final = 60
_SERVERS: Final = ("mongod", "redis")


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
        wrapped = [sys.executable, "-m", "scripts.local.child", name, f"{house.run}/{name}.pid", "--", *command]
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
                self._begin()
                assert self._supervisor is not None  # noqa: S101 -- just started
                self._supervisor.wait()
                print("the supervisor has ended; it is started again", flush=True)
                time.sleep(0.5)  # let the children that die with it be gone
        except Stopped:
            self._end()

    def _begin(self) -> None:
        house = self._house
        house.socket.unlink(missing_ok=True)
        ports = house.ports()
        os.environ.update(house.environment(ports))
        config = house.run / "supervisord.conf"
        config.write_text(configuration(house, ports))
        command = [sys.executable, "-m", "scripts.local.child", "supervisor", str(house.run / "supervisor.pid"), "--"]
        self._supervisor = subprocess.Popen([*command, sys.executable, "-m", "supervisor.supervisord", "-c", str(config)], cwd=ROOT)
        try:
            self._bring_up(ports)
        except (embedded.Unusable, OSError, Fault, subprocess.SubprocessError) as error:
            print(f"not everything came up: {error}; trying again", flush=True)
            self._supervisor.kill()
            time.sleep(1)

    def _bring_up(self, ports: dict[str, int]) -> None:
        house = self._house
        if house.own_mongo:
            embedded.wait_for_mongod(ports["mongod"], self._pid("mongod"))
        if house.own_redis:
            embedded.wait_for_redis(ports["redis"], self._pid("redis"))
        subprocess.run([sys.executable, "-m", "shared.documents"], cwd=ROOT, check=True, timeout=120)
        rpc = proxy(house)
        for name in house.commands(ports):
            if name not in _SERVERS:
                rpc.supervisor.startProcess(name, False)  # noqa: FBT003 -- the remote call takes no names

    def _pid(self, name: str) -> int:
        """Wait for a process' pid as the supervisor knows it."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError, Fault):
                info: Any = proxy(self._house).supervisor.getProcessInfo(name)
                if info["pid"]:
                    return int(info["pid"])
            time.sleep(0.1)
        raise embedded.Unusable(f"{name} was not started; see {self._house.logs}/supervisor.log.")

    def _end(self) -> None:
        """Stop what needs the servers first, then the servers."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._supervisor is None or self._supervisor.poll() is not None:
            return
        with contextlib.suppress(OSError, Fault):
            rpc = proxy(self._house)
            names = list(self._house.commands(self._house.ports()))
            for name in names:
                if name not in _SERVERS:
                    rpc.supervisor.stopProcess(name, False)  # noqa: FBT003 -- the same
            until = time.monotonic() + _STOP_S
            while time.monotonic() < until:
                states: Any = rpc.supervisor.getAllProcessInfo()
                if all(one["statename"] in {"STOPPED", "EXITED"} for one in states if one["name"] not in _SERVERS):
                    break
                time.sleep(0.2)
        self._supervisor.terminate()
        try:
            self._supervisor.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
        for pidfile in self._house.run.glob("*.pid"):
            pidfile.unlink(missing_ok=True)
        self._house.socket.unlink(missing_ok=True)

    def _stop_asked(self, _signal: int, _frame: FrameType | None) -> None:
        raise Stopped


def proxy(house: House) -> Any:
    """Talk to the supervisor of a house."""
    return ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{house.socket}"))


def main() -> None:
    """Guard the house that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m scripts.local.guard", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    house = House(given.data, given.port, given.workers)
    house.prepare()
    lock = house.lock()
    if lock is None:
        sys.exit("another process holds this data folder")
    with lock:
        house.remember()
        for count in house.run.glob("*.starts"):
            count.unlink()
        (house.run / "guard.pid").write_text(f"{os.getpid()}\n")
        Guard(house).run()


if __name__ == "__main__":
    main()
