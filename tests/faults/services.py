"""The real services over a folder of their own, as ``scripts/start`` runs them, and a way to reach every process."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import redis

from scripts.local import embedded_servers
from scripts.local.installation import ROOT, Installation
from scripts.local.start import failed_checks
from shared import settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db, connect
from tests.faults.fault_plan import VARIABLE, Plan

MIB: Final = 1024 * 1024
LEASE_S: Final = 4
HARD_LIMIT_S: Final = 40
"""Celery kills a frozen child then: long enough for another worker to take over and finish before that."""
_READY_S: Final = 400
_BLOBS_BYTES: Final = 512 * MIB

_SETTINGS: Final = {
    "WORKER_LEASE_S": str(LEASE_S),
    "WORKER_TASK_S": "5",
    "WORKER_SOFT_LIMIT_S": "35",
    "WORKER_HARD_LIMIT_S": str(HARD_LIMIT_S),
    "WORKER_CLAIM_SIZE": "8",
    "WORKER_CHILD_MEMORY_BYTES": str(320 * MIB),
    "SWEEP_CLEAN_INTERVAL_S": "2",
    "BLOBS_MIN_FREE_BYTES": str(8 * MIB),
    "LOG_LEVEL": "WARNING",
}


class Stack:
    """One running installation. ``full_disk`` works only where this process may mount a file system."""

    def __init__(self, folder: Path, *, workers: int = 2) -> None:
        """Keep the folder; nothing runs yet."""
        self.house = Installation(folder, embedded_servers.free_port(), workers, embedded_mongodb=True, embedded_redis=True)
        self.plan = Plan(folder / "plan")
        self.url = f"http://{embedded_servers.LOOPBACK}:{self.house.port}"
        self.mounted = False
        self._guard: subprocess.Popen[bytes] | None = None
        self._db: tuple[int, Db] | None = None
        self._connecting = threading.Lock()

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        self.house.prepare()
        self._mount()
        own = {name: value for name, value in os.environ.items() if name not in {"MONGODB_URL", "REDIS_URL"}}
        command = [sys.executable, "-m", "scripts.local.exec_child", "guard", str(self.house.run / "test-guard.pid"), "--"]
        command += [sys.executable, "-m", "tests.faults.faulty_watchdog", "--data", str(self.house.data)]
        command += ["--port", str(self.house.port), "--workers", str(self.house.workers)]
        with (self.house.logs / "guard.log").open("ab") as log:
            self._guard = subprocess.Popen(
                command,
                cwd=ROOT,
                env=own | _SETTINGS | {VARIABLE: str(self.plan.folder), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until ``/readyz`` finds nothing amiss."""
        until = time.monotonic() + _READY_S
        missing: dict[str, str] | None = None
        while time.monotonic() < until:
            missing = failed_checks(self.url)
            if missing == {}:
                return
            time.sleep(0.3)
        raise AssertionError(f"the stack did not become ready: {missing}; see {self.house.logs}")

    def stop(self) -> None:
        """End everything, in order."""
        if self._db is not None:
            self._db[1].client.close()
        if self._guard is not None and self._guard.poll() is None:
            self._guard.terminate()
            try:
                self._guard.wait(240)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait(60)
        if self.mounted:
            subprocess.run(["umount", "-l", self.blobs_root], check=True, timeout=20)

    @property
    def blobs_root(self) -> Path:
        """Folder of the blobs."""
        return self.house.data / "blobs"

    @property
    def blobs(self) -> LocalBlobs:
        """The blobs."""
        return LocalBlobs(self.blobs_root)

    @property
    def db(self) -> Db:
        """The database, wherever it listens now. The threads of a load ask too: one makes the connection."""
        port = self._port("mongod")
        with self._connecting:
            if self._db is None or self._db[0] != port:
                if self._db is not None:
                    self._db[1].client.close()
                self._db = (port, connect(settings.Mongo(url=embedded_servers.mongo_url(port)), app="faults"))
            return self._db[1]

    def redis(self) -> "redis.Redis":
        """Connect to Redis; the caller closes it."""
        return redis.Redis(embedded_servers.LOOPBACK, self._port("redis"), socket_timeout=2, socket_connect_timeout=2)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Sort the processes of this stack by what they are. Only what descends from our own guard is named."""
        found: dict[str, list[psutil.Process]] = {}
        assert self._guard is not None
        with suppress(psutil.Error):
            for process in psutil.Process(self._guard.pid).children(recursive=True):
                with suppress(psutil.Error):
                    found.setdefault(_kind(process), []).append(process)
        return found

    def kill(self, kind: str, pick: int = 0) -> bool:
        """SIGKILL one process of a kind; False when there is none now."""
        there = self.processes().get(kind, [])
        if not there:
            return False
        try:
            there[pick % len(there)].kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def freeze(self, kind: str, seconds: float) -> bool:
        """SIGSTOP a process for a while."""
        there = self.processes().get(kind, [])
        if not there:
            return False
        with suppress(psutil.NoSuchProcess):
            there[0].send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            there[0].send_signal(signal.SIGCONT)
        return True

    def fill_disk(self, seconds: float) -> bool:
        """Leave no room for blobs for a while; False where nothing could be mounted."""
        if not self.mounted:
            return False
        ballast = self.blobs_root / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * MIB)
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        time.sleep(seconds)
        ballast.unlink()
        return True

    def _mount(self) -> None:
        if os.geteuid() != 0:
            return
        command = ["mount", "-t", "tmpfs", "-o", f"size={_BLOBS_BYTES}", "tmpfs", str(self.blobs_root)]
        self.mounted = subprocess.run(command, check=False, capture_output=True, timeout=20).returncode == 0

    def _port(self, name: str) -> int:
        return self.house.read_ports()[name]


def _kind(process: psutil.Process) -> str:
    """Say what a process is by its command line and its parent's."""
    line = " ".join(process.cmdline())
    above = " ".join(process.parent().cmdline()) if process.parent() else ""
    by_supervisor = "supervisor.supervisord" in above
    for mark, name in (
        ("supervisor.supervisord", "supervisor"),
        ("worker.sandbox.child", "helper"),
        ("worker.entrypoints.sweep", "sweep"),
    ):
        if mark in line:
            return name
    for mark, name in (("gunicorn", "web"), ("worker.entrypoints.images", "worker"), ("worker.entrypoints.inspections", "inspector")):
        if mark in line:
            return name if by_supervisor else f"{name} child"
    if "spawn_main" in line:
        return "inspector child" if "worker.entrypoints.inspections" in above else "worker child"
    for mark in ("mongod", "redis-server"):
        if mark in line.split(" ", 1)[0]:
            return mark
    return "other"
