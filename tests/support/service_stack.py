"""Run all services as ``scripts/start`` does, or use a running service of which only the URL is known."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.local.installation import ROOT, Installation, load_installation
from scripts.local.servers.ports import LOOPBACK, free_port

_RESTART_S = 120
"""A time limit for the tests, which the service does not promise. When other tests ran at the same time on a slow disk,
the servers alone took up to 10 s to restart."""
_SCRIPT_S = 400


def wait_until(condition: Callable[[], object], within_s: float = 60.0, what: str = "the condition") -> None:
    """Poll ``condition`` until it returns a true value.

    :param what: a description of the expected condition, for the error message.
    :raises AssertionError: when the condition does not become true within ``within_s`` seconds.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {within_s} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Service:
    """A running Shelfsight service of which only the URL is known.

    There may be a proxy in front of the service, and the service may contain batches from other users.
    """

    url: str


class Stack:
    """All processes that ``scripts/start`` starts, with a separate data folder and a free port.

    Each process is identified by a name, such as ``web`` or ``worker-1``.
    """

    def __init__(self, data: Path, workers: int = 1, settings: dict[str, str] | None = None) -> None:
        """Choose a port. The processes are not started before ``start`` is called.

        :param settings: environment variables for the processes, in addition to those of this process.
        """
        self.data = data.resolve()
        self.port = free_port()
        self._workers = workers
        self._settings = settings or {}

    @property
    def url(self) -> str:
        """The URL of the web front."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def mongo_url(self) -> str:
        """The URL of this stack's MongoDB, with the user of the service."""
        return self.installation.mongodb_url()

    @property
    def redis_url(self) -> str:
        """The URL of this stack's Redis."""
        return self.installation.redis_url()

    @property
    def installation(self) -> Installation:
        """The installation as it was last started."""
        installation = load_installation(self.data)
        assert installation is not None
        return installation

    def start(self) -> None:
        """Start all processes and wait until ``/readyz`` reports that they are ready."""
        self._script("start", "--detach", "--port", str(self.port), "--workers", str(self._workers))

    def stop(self) -> None:
        """Stop all processes with ``scripts/stop``."""
        self._script("stop")

    def pid(self, name: str) -> int:
        """Return the pid of a process. If the process is being restarted, wait until it runs.

        :param name: ``mongod``, ``redis``, ``web``, ``worker-1`` (and so on), ``inspector``, ``jobs``, ``sweep``,
            ``supervisor`` or ``guard``.
        :raises AssertionError: when the process is not running within 120 s.
        """
        deadline = time.monotonic() + _RESTART_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.data / "run" / f"{name}.pid").read_text())
                os.kill(pid, 0)
                return pid
            time.sleep(0.05)  # the supervisor is restarting the process
        raise AssertionError(f"{name} is not running. The log of the watchdog:\n{self.watchdog_log()}")

    def watchdog_log(self) -> str:
        """Return everything that the watchdog has logged in this data folder."""
        log = self.data / "logs/guard.log"
        return log.read_text() if log.exists() else "The watchdog has written no log."

    def kill(self, name: str, signal_number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal (by default SIGKILL) to a process of the stack, and return the pid of this process."""
        pid = self.pid(name)
        os.kill(pid, signal_number)
        return pid

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
