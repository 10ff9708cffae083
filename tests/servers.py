"""Real servers for the tests: started on free ports in their own folders, their pids checked, ended by pid."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts.local import embedded
from scripts.local.house import ROOT

_STOP_S = 20
_RESTART_S = 30
_SCRIPT_S = 400


class Server:
    """One server process over one folder, on one port for as long as this object lives."""

    name: str

    def __init__(
        self, folder: Path, command: Callable[[Path, int], list[str]], ready: Callable[[int, int], None], name: str
    ) -> None:
        """Keep the way to start it; nothing runs yet."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = embedded.free_port()
        self.name = name
        self._command, self._ready = command, ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Pid of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it, and no other, answers."""
        log = (self.folder.parent / f"{self.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command(self.folder, self.port), stdout=log, stderr=log, start_new_session=True
            )
        self._ready(self.port, self._process.pid)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)

    def restart(self) -> None:
        """Stop it in order and start it again on the same port."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mongod(Server):
    """A mongod: a replica set of one."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder`` for its data."""
        super().__init__(folder, embedded.mongod_command, embedded.wait_for_mongod, "mongod")

    @property
    def url(self) -> str:
        """Its address."""
        return embedded.mongo_url(self.port)


class RedisServer(Server):
    """A redis-server."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder`` for its data."""
        super().__init__(folder, embedded.redis_command, embedded.wait_for_redis, "redis")

    @property
    def url(self) -> str:
        """Its address."""
        return embedded.redis_url(self.port)


class Stack:
    """Everything that ``scripts/start`` starts, over a folder of its own on a free port, its processes known by name."""

    def __init__(self, data: Path, workers: int = 1) -> None:
        """Choose a port; nothing runs yet."""
        self.data = data.resolve()
        self.port = embedded.free_port()
        self._workers = workers

    @property
    def url(self) -> str:
        """Address of the web front."""
        return f"http://{embedded.LOOPBACK}:{self.port}"

    @property
    def mongo_url(self) -> str:
        """Address of its MongoDB."""
        return embedded.mongo_url(self._ports()["mongod"])

    @property
    def redis_url(self) -> str:
        """Address of its Redis."""
        return embedded.redis_url(self._ports()["redis"])

    def start(self) -> None:
        """Start it and wait until ``/readyz`` says that all is there."""
        self._script("start", "--detach", "--port", str(self.port), "--workers", str(self._workers))

    def stop(self) -> None:
        """Stop it in order."""
        self._script("stop")

    def pid(self, name: str) -> int:
        """Give the pid of ``mongod``, ``redis``, ``web``, ``worker-1``.., ``sweep``, ``supervisor`` or ``guard``, once it runs."""
        until = time.monotonic() + _RESTART_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.data / "run" / f"{name}.pid").read_text())
                os.kill(pid, 0)
                return pid
            time.sleep(0.05)  # the supervisor is starting it again
        raise AssertionError(f"{name} does not run")

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process of the stack.

        :returns: its pid.
        """
        pid = self.pid(name)
        os.kill(pid, how)
        return pid

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.data / "run/ports.json").read_text())
        return ports

    def _script(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"scripts.local.{name}", "--data", str(self.data), *arguments]
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=_SCRIPT_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
