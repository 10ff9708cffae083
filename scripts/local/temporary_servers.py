"""Run real servers for tests and benchmarks.

Each server has its own folder and uses a free port. When the port answers, the pid in the answer must be that of the
started process. A server is stopped by its pid.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from scripts.local import embedded_servers

_STOP_S: Final = 20


class Server:
    """One server process with its own data folder. Its port stays the same when the process is restarted."""

    name: str

    def __init__(
        self, folder: Path, command: Callable[[Path, int], list[str]], ready: Callable[[int, int], None], name: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = embedded_servers.free_port()
        self.name = name
        self._command, self._ready = command, ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server; if the start fails, kill the process and delete its folder."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def pid(self) -> int:
        """The pid of the running process."""
        assert self._process is not None  # noqa: S101 -- the caller starts the process first
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until this process, and no other, answers on the port."""
        log = (self.folder.parent / f"{self.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command(self.folder, self.port), stdout=log, stderr=log, start_new_session=True
            )
        self._ready(self.port, self._process.pid)

    def kill(self) -> None:
        """Stop the process with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the process with SIGTERM, and with SIGKILL if it is still running after ``_STOP_S`` seconds."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Suspend the process (SIGSTOP), and wait until all of its threads have stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        until = time.monotonic() + _STOP_S
        while any(_state(thread) != "T" for thread in Path(f"/proc/{self.pid}/task").iterdir()):
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} (pid {self.pid}) did not stop within {_STOP_S} s")
            time.sleep(0.001)  # poll, because the kernel sends no notification

    def resume(self) -> None:
        """Continue the suspended process (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signum)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)

    def remove(self) -> None:
        """Kill the process and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mongod(Server):
    """A mongod that is a replica set with one member."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, embedded_servers.mongod_command, embedded_servers.wait_for_mongod, "mongod")

    @property
    def url(self) -> str:
        """The connection string of this MongoDB."""
        return embedded_servers.mongo_url(self.port)


class RedisServer(Server):
    """A redis-server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, embedded_servers.redis_command, embedded_servers.wait_for_redis, "redis")

    @property
    def url(self) -> str:
        """The URL of this Redis."""
        return embedded_servers.redis_url(self.port)


def _state(thread: Path) -> str:
    """Read a thread's state from its folder under /proc. ``T`` means stopped; see proc_pid_stat(5) for all states."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
