"""The whole stack as ``scripts/start`` runs it, for the tests that need it; and any service of which only the address is known."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.local import embedded_servers
from scripts.local.installation import ROOT

_RESTART_S = 120
"""No promise, but the end of a test's patience: beside other tests, on a slow disk, servers alone were seen to take 10 s."""
_SCRIPT_S = 400


def wait_until(true: Callable[[], object], within_s: float = 60.0, what: str = "it") -> None:
    """Wait until something is true.

    :raises AssertionError: it was not within ``within_s`` seconds.
    """
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"{what}: not within {within_s} s"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Service:
    """A running Shelfsight, seen from outside: wherever it runs, there may be a proxy before it and other people's batches in it."""

    url: str


class Stack:
    """Everything that ``scripts/start`` starts, over a folder of its own on a free port, its processes known by name."""

    def __init__(self, data: Path, workers: int = 1, settings: dict[str, str] | None = None) -> None:
        """Choose a port; nothing runs yet.

        :param settings: variables that its processes get besides this one's own.
        """
        self.data = data.resolve()
        self.port = embedded_servers.free_port()
        self._workers = workers
        self._settings = settings or {}

    @property
    def url(self) -> str:
        """Address of the web front."""
        return f"http://{embedded_servers.LOOPBACK}:{self.port}"

    @property
    def mongo_url(self) -> str:
        """Address of its MongoDB."""
        return embedded_servers.mongo_url(self._ports()["mongod"])

    @property
    def redis_url(self) -> str:
        """Address of its Redis."""
        return embedded_servers.redis_url(self._ports()["redis"])

    def start(self) -> None:
        """Start it and wait until ``/readyz`` says that all is there."""
        self._script("start", "--detach", "--port", str(self.port), "--workers", str(self._workers))

    def stop(self) -> None:
        """Stop it in order."""
        self._script("stop")

    def pid(self, name: str) -> int:
        """Give the pid of ``mongod``, ``redis``, ``web``, ``worker-1``.., ``inspector``, ``sweep``, ``supervisor`` or ``guard``, once it runs."""
        until = time.monotonic() + _RESTART_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.data / "run" / f"{name}.pid").read_text())
                os.kill(pid, 0)
                return pid
            time.sleep(0.05)  # the supervisor is starting it again
        raise AssertionError(f"{name} does not run:\n{self.guards_log()}")

    def guards_log(self) -> str:
        """Give what the guard has written, since the first start of this folder."""
        log = self.data / "logs/guard.log"
        return log.read_text() if log.exists() else "There is no log of it."

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
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self._settings,
            capture_output=True,
            text=True,
            timeout=_SCRIPT_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
