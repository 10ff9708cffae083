"""Run real servers for tests and benchmarks, with the same commands and passwords as ``scripts/start``.

Each server has its own folder and uses a free port, on which the started process itself must listen. A server is
stopped by its pid.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, Self

from scripts.local.servers import mongod, mongod_choice, redis_server
from scripts.local.servers.credentials import Credentials, create_credentials
from scripts.local.servers.ports import free_port

_STOP_S: Final = 20


class Server:
    """One server process with its own folder. Its port stays the same when the process is restarted.

    The data is in the folder ``data``. The passwords are in the folder ``secrets``, unless the caller passes others.
    """

    name: str

    def __init__(self, folder: Path, name: str, credentials: Credentials | None = None) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.name = name
        self.credentials = credentials or create_credentials(folder / "secrets")
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
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, start_new_session=True)
        self.wait_until_ready()

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

    def _command(self) -> list[str]:
        raise NotImplementedError

    def wait_until_ready(self) -> None:
        """Wait until the running process accepts commands."""
        raise NotImplementedError

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


class MongodMember(Server):
    """A mongod that waits to become a member of a replica set."""

    def _command(self) -> list[str]:
        program = mongod_choice.choose(self.data, _ignore)
        mongod_choice.record_version(self.data, program)
        return mongod.command(program, self.data, self.port, self.credentials)

    def wait_until_ready(self) -> None:
        """Wait until the running process accepts commands."""
        mongod.wait_until_listening(self.port, self.pid)


class Mongod(MongodMember):
    """A mongod that is a replica set with one member. Its user may do everything, because tests use many databases."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "mongod")

    @property
    def url(self) -> str:
        """The connection string of this MongoDB."""
        return mongod.url(self.port, self.credentials)

    def direct_url(self, port: int) -> str:
        """Return the connection string of a proxy in front of this MongoDB. A client does not bypass the proxy."""
        return mongod.direct_url(port, self.credentials)

    def wait_until_ready(self) -> None:
        """Wait until the running process accepts commands."""
        mongod.wait_until_primary(self.port, self.pid, self.credentials, mongod.ADMINISTRATOR_ROLES)


class RedisServer(Server):
    """A Valkey or Redis."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "redis")

    @property
    def url(self) -> str:
        """The URL of this Redis."""
        return redis_server.url(self.port, self.credentials)

    def _command(self) -> list[str]:
        return redis_server.command(redis_server.find_program(), self.data, self.port, self.credentials)

    def wait_until_ready(self) -> None:
        """Wait until the running process accepts commands."""
        redis_server.wait_until_ready(self.port, self.pid, self.credentials)


def _ignore(_sentence: str) -> None:
    """Say nothing: for a test, any mongod is good enough."""


def _state(thread: Path) -> str:
    """Read a thread's state from its folder under /proc. ``T`` means stopped; see proc_pid_stat(5) for all states."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
