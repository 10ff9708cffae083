"""Start and stop the real servers and processes that a benchmark needs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from scripts.local.installation import ROOT
from scripts.local.servers.ports import LOOPBACK, free_port
from scripts.local.temporary_servers import Mongod, RedisServer
from shared import settings
from shared.storage.indexes import create_indexes
from shared.storage.mongo import Db, connect

WEB = "web.app:create_app()"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


class Process:
    """A running program of the project, started in the repository's root folder.

    Its output is written to ``<name>.log`` in the folder ``logs``.
    """

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The pid of the started process."""
        return self._process.pid

    def children(self) -> list[int]:
        """Return the pids of all descendants that are running."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def raise_if_ended(self) -> None:
        """Raise ``RuntimeError`` with the last lines of the log if the process has ended."""
        if self._process.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-15:]
            raise RuntimeError("\n".join([f"{self.name} ended with code {self._process.returncode}:", *last]))

    def stop(self) -> None:
        """Send SIGTERM to the process, kill it after a timeout, and kill every descendant that is still running."""
        if self._process.poll() is not None:
            return
        descendants = [psutil.Process(pid) for pid in self.children()]
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
        for child in descendants:
            if child.is_running():
                child.kill()


class Gunicorn(Process):
    """One WSGI application under gunicorn, with one worker process and the default number of threads of the service.

    The constructor waits until gunicorn listens and its worker process is running. The web front uses its own gunicorn
    configuration; a baseline uses gunicorn's defaults.
    """

    def __init__(self, name: str, application: str, environment: Mapping[str, str], logs: Path) -> None:
        self.port = free_port()
        own = {"WEB_WORKERS": "1", "WEB_PORT": str(self.port)}
        options = ["-c", "web/server/gunicorn_conf.py"]
        if application != WEB:
            threads = str(settings.Web().threads)
            options = [
                "-b",
                f"{LOOPBACK}:{self.port}",
                "-k",
                "gthread",
                "--threads",
                threads,
                "--no-control-socket",
            ]
        super().__init__(name, ["gunicorn", *options, application], {**environment, **own}, logs)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._listens():
            self.raise_if_ended()
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{name} did not listen within {_START_TIMEOUT_S:.0f} s.")
            time.sleep(0.05)  # poll, because a starting process sends no notification

    @property
    def worker_pid(self) -> int:
        """The pid of the one worker process."""
        (pid,) = self.children()
        return pid

    def _listens(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), 1).close()
        except OSError:
            return False
        return len(self.children()) == 1


class Servers:
    """A new MongoDB and a new Redis in ``folder``, and the settings of a service that uses them.

    :param indexes: whether to create the indexes now; otherwise, the caller creates them after it has filled the
        database.
    """

    def __init__(self, folder: Path, *, indexes: bool = True) -> None:
        self.folder = folder
        self.blobs = folder / "blobs"
        self.blobs.mkdir()
        self.mongod = Mongod(folder / "mongod")
        self.redis = RedisServer(folder / "redis")
        try:
            self.mongod.start()
            self.redis.start()
            self.db = self.connect()
            if indexes:
                create_indexes(self.db)
        except BaseException:
            self.stop()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the service's processes: both servers, the blob store, and one OpenMP thread."""
        return {
            "MONGODB_URL": self.mongod.url,
            "MONGODB_DATABASE": "bench",
            "REDIS_URL": self.redis.url,
            "BLOBS_ROOT": str(self.blobs),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def mongo(self) -> settings.Mongo:
        """The database settings."""
        return settings.Mongo(url=self.mongod.url, database="bench")

    @property
    def settings(self) -> settings.Settings:
        """The service's settings for use in this process."""
        return settings.Settings(
            mongo=self.mongo, redis=settings.Redis(url=self.redis.url), blobs=settings.Blobs(root=self.blobs)
        )

    def connect(self) -> Db:
        """Connect to the database."""
        return connect(self.mongo, app="bench")

    def reset(self) -> None:
        """Empty the database and remove all blobs, so that no work is waiting when the next part starts."""
        self.db.client.drop_database(self.db.name)
        create_indexes(self.db)
        shutil.rmtree(self.blobs)
        self.blobs.mkdir()

    def stop(self) -> None:
        """Stop both servers."""
        self.mongod.kill()
        self.redis.kill()


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Provide a context for processes that are already running; at its end, stop them, with the last one first."""
    try:
        yield
    finally:
        for process in reversed(processes):
            process.stop()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds, user and system, that a process and its running descendants have used so far."""
    process = psutil.Process(pid)
    times = [member.cpu_times() for member in [process, *process.children(recursive=True)]]
    return float(sum(cpu.user + cpu.system for cpu in times))
