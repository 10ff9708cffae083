"""All services as ``scripts/start`` runs them, and a service of which only the address is known."""

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
"""A time limit of the tests, not a promised figure. With other tests on a slow disk, the servers alone took up to 10 s."""
_SCRIPT_S = 400


def wait_until(condition: Callable[[], object], within_s: float = 60.0, what: str = "the condition") -> None:
    """Poll ``condition`` until it returns a true value.

    :param what: what is expected, for the message of the error.
    :raises AssertionError: when it is not true within ``within_s`` seconds.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {within_s} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Service:
    """A running Shelfsight of which only the URL is known. A proxy may be in front of it, and it may hold batches of other users."""

    url: str


class Stack:
    """All processes that ``scripts/start`` starts, with their own data folder and a free port. Processes are addressed by name."""

    def __init__(self, data: Path, workers: int = 1, settings: dict[str, str] | None = None) -> None:
        """Choose a port. ``start`` starts the processes.

        :param settings: environment variables of its processes, in addition to those of this process.
        """
        self.data = data.resolve()
        self.port = embedded_servers.free_port()
        self._workers = workers
        self._settings = settings or {}

    @property
    def url(self) -> str:
        """The URL of the web front."""
        return f"http://{embedded_servers.LOOPBACK}:{self.port}"

    @property
    def mongo_url(self) -> str:
        """The URL of its MongoDB."""
        return embedded_servers.mongo_url(self._ports()["mongod"])

    @property
    def redis_url(self) -> str:
        """The URL of its Redis."""
        return embedded_servers.redis_url(self._ports()["redis"])

    def start(self) -> None:
        """Start all processes and wait until ``/readyz`` reports that they are ready."""
        self._script("start", "--detach", "--port", str(self.port), "--workers", str(self._workers))

    def stop(self) -> None:
        """Stop all processes with ``scripts/stop``."""
        self._script("stop")

    def pid(self, name: str) -> int:
        """Return the pid of a process, and wait for it while it is restarted.

        :param name: ``mongod``, ``redis``, ``web``, ``worker-1``.., ``inspector``, ``sweep``, ``supervisor`` or ``guard``.
        :raises AssertionError: when it does not run within 120 s.
        """
        deadline = time.monotonic() + _RESTART_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.data / "run" / f"{name}.pid").read_text())
                os.kill(pid, 0)
                return pid
            time.sleep(0.05)  # the supervisor is restarting it
        raise AssertionError(f"{name} does not run:\n{self.watchdog_log()}")

    def watchdog_log(self) -> str:
        """Return the log of the watchdog since the first start with this data folder."""
        log = self.data / "logs/guard.log"
        return log.read_text() if log.exists() else "The watchdog has written no log."

    def kill(self, name: str, signal_number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process of the stack, SIGKILL by default, and return the pid of the process."""
        pid = self.pid(name)
        os.kill(pid, signal_number)
        return pid

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.data / "run/ports.json").read_text())
        return ports

    def _script(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"scripts.local.{name}", "--data", str(self.data), *arguments]
        completed = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self._settings,
            capture_output=True,
            text=True,
            timeout=_SCRIPT_S,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
