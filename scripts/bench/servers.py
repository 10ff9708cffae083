"""The real servers and processes that a bench drives, each in a folder that goes when the bench ends."""

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

from scripts.local import embedded_servers
from scripts.local.installation import ROOT
from scripts.local.temporary_servers import Mongod, RedisServer
from shared import settings
from shared.storage.mongo import Db, connect
from shared.storage.schema import create_indexes

WEB = "web.app:create_app()"
_START_S = 60.0
_STOP_S = 30.0


class Process:
    """A program of the project, run from the repository's root; its output goes to a log in the bench's folder."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], logs: Path) -> None:
        """Start it."""
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
        """Pid of the process that was started."""
        return self._process.pid

    def children(self) -> list[int]:
        """Pids of the living children."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def check(self) -> None:
        """Raise ``RuntimeError`` when it has ended."""
        if self._process.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-15:]
            raise RuntimeError("\n".join([f"{self.name} ended with code {self._process.returncode}:", *last]))

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for it and its children if that takes too long."""
        if self._process.poll() is not None:
            return
        family = [psutil.Process(pid) for pid in self.children()]
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)
        for child in family:
            if child.is_running():
                child.kill()


class Gunicorn(Process):
    """One WSGI application under gunicorn with one worker process and as many threads as are shipped."""

    def __init__(self, name: str, application: str, environment: Mapping[str, str], logs: Path) -> None:
        """Start it and wait until it listens and its worker process is there.

        The web front gets its own configuration, a baseline gets gunicorn's defaults.
        """
        self.port = embedded_servers.free_port()
        own = {"WEB_WORKERS": "1", "WEB_PORT": str(self.port)}
        options = ["-c", "web/server/gunicorn_conf.py"]
        if application != WEB:
            threads = str(settings.Web().threads)
            options = [
                "-b",
                f"{embedded_servers.LOOPBACK}:{self.port}",
                "-k",
                "gthread",
                "--threads",
                threads,
                "--no-control-socket",
            ]
        super().__init__(name, ["gunicorn", *options, application], {**environment, **own}, logs)
        until = time.monotonic() + _START_S
        while not self._listens():
            self.check()
            if time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"{name} did not listen within {_START_S:.0f} s.")
            time.sleep(0.05)  # polling a process that is starting

    @property
    def worker_pid(self) -> int:
        """Pid of the one process that answers."""
        (pid,) = self.children()
        return pid

    def _listens(self) -> bool:
        try:
            socket.create_connection((embedded_servers.LOOPBACK, self.port), 1).close()
        except OSError:
            return False
        return len(self.children()) == 1


class Servers:
    """A fresh MongoDB and Redis, and the environment of a service over them."""

    def __init__(self, folder: Path, *, indexes: bool = True) -> None:
        """Start both over ``folder``.

        :param indexes: create them at once; without, the caller does after it has filled the database.
        """
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
        """Settings for the service's processes: these servers, everything else as shipped; models on one thread a process."""
        return {
            "MONGODB_URL": self.mongod.url,
            "MONGODB_DATABASE": "bench",
            "REDIS_URL": self.redis.url,
            "BLOBS_ROOT": str(self.blobs),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def mongo(self) -> settings.Mongo:
        """Settings of the database."""
        return settings.Mongo(url=self.mongod.url, database="bench")

    @property
    def settings(self) -> settings.Settings:
        """Settings for use in this process."""
        return settings.Settings(
            mongo=self.mongo, redis=settings.Redis(url=self.redis.url), blobs=settings.Blobs(root=self.blobs)
        )

    def connect(self) -> Db:
        """Open the database."""
        return connect(self.mongo, app="bench")

    def forget_images(self) -> None:
        """Empty the database and remove all blobs: the next part begins with nothing waiting."""
        self.db.client.drop_database(self.db.name)
        create_indexes(self.db)
        shutil.rmtree(self.blobs)
        self.blobs.mkdir()

    def stop(self) -> None:
        """End both servers."""
        self.mongod.kill()
        self.redis.kill()


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """End these processes at the end, the last started first."""
    try:
        yield
    finally:
        for process in reversed(processes):
            process.stop()


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, used so far by a process and its living children."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return float(sum(one.user + one.system for one in times))
