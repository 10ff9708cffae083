"""Real servers for tests and benches: on free ports in their own folders, their pids checked, ended by pid."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from scripts.local import embedded_servers

_STOP_S: Final = 20


class Server:
    """One server process over one folder, on one port for as long as this object lives."""

    name: str

    def __init__(
        self, folder: Path, command: Callable[[Path, int], list[str]], ready: Callable[[int, int], None], name: str
    ) -> None:
        """Keep the way to start it; nothing runs yet."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = embedded_servers.free_port()
        self.name = name
        self._command, self._ready = command, ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it; whatever comes then, it is removed."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """See ``remove``."""
        self.remove()

    @property
    def pid(self) -> int:
        """Pid of the running process."""
        assert self._process is not None  # noqa: S101 -- it is started before anybody asks
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

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mongod(Server):
    """A mongod: a replica set of one."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder`` for its data."""
        super().__init__(folder, embedded_servers.mongod_command, embedded_servers.wait_for_mongod, "mongod")

    @property
    def url(self) -> str:
        """Its address."""
        return embedded_servers.mongo_url(self.port)


class RedisServer(Server):
    """A redis-server."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder`` for its data."""
        super().__init__(folder, embedded_servers.redis_command, embedded_servers.wait_for_redis, "redis")

    @property
    def url(self) -> str:
        """Its address."""
        return embedded_servers.redis_url(self.port)
