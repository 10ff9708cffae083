"""The real services with their own data folder, as ``scripts/start`` runs them, and access to every process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import redis
from pymongo import MongoClient

from scripts.local.installation import ROOT, Installation
from scripts.local.servers import mongod
from scripts.local.servers.ports import LOOPBACK, free_port
from scripts.local.start import failed_checks
from shared import settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db, connect
from tests.faults.fault_plan import VARIABLE, FaultPlan
from tests.faults.replica_set import ReplicaSet

MIB: Final = 1024 * 1024
LEASE_S: Final = 4
HARD_LIMIT_S: Final = 40
"""After this time Celery kills a frozen child. It is long enough for another worker to take over and finish before."""
_READY_S: Final = 400
_BLOBS_BYTES: Final = 512 * MIB
_QUERY_S: Final = 120.0

_SETTINGS: Final = {
    "WORKER_LEASE_S": str(LEASE_S),
    "WORKER_TASK_S": "5",
    "WORKER_SOFT_LIMIT_S": "35",
    "WORKER_HARD_LIMIT_S": str(HARD_LIMIT_S),
    "WORKER_CLAIM_SIZE": "8",
    "WORKER_CHILD_TIMEOUT_S": "12",
    "WORKER_CHILD_MEMORY_BYTES": str(320 * MIB),
    "SWEEP_CLEAN_INTERVAL_S": "2",
    "BLOBS_MIN_FREE_BYTES": str(8 * MIB),
    "LOG_LEVEL": "WARNING",
}


class FaultStack:
    """One running installation. ``fill_disk`` works only when this process may mount a file system."""

    def __init__(self, folder: Path, *, workers: int = 2, with_replica_set: bool = False) -> None:
        """Use ``folder`` for all data. ``start`` starts the processes.

        :param with_replica_set: use a replica set with three members instead of the embedded one with a single member.
        """
        self.replica_set = ReplicaSet(folder / "mongodb") if with_replica_set else None
        self.installation = Installation(
            folder, free_port(), workers, embedded_mongodb=not with_replica_set, embedded_redis=True
        )
        self.plan = FaultPlan(folder / "plan")
        self.url = f"http://{LOOPBACK}:{self.installation.port}"
        self.mounted = False
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._db: tuple[str, Db] | None = None
        self._connection_lock = threading.Lock()

    def start(self) -> None:
        """Start all processes and wait until they are ready."""
        self.installation.prepare()
        self._mount()
        variables = {name: value for name, value in os.environ.items() if name not in {"MONGODB_URL", "REDIS_URL"}}
        if self.replica_set is not None:
            self.replica_set.start()
            variables["MONGODB_URL"] = self.replica_set.url
        command = [sys.executable, "-m", "scripts.local.exec_child", "guard", str(self.installation.run / "test-guard.pid"), "--"]
        command += [sys.executable, "-m", "tests.faults.faulty_watchdog", "--data", str(self.installation.data)]
        command += ["--port", str(self.installation.port), "--workers", str(self.installation.workers)]
        with (self.installation.logs / "guard.log").open("ab") as log:
            self._watchdog = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables | _SETTINGS | {VARIABLE: str(self.plan.folder), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until ``/readyz`` reports no problem.

        :raises AssertionError: when that takes more than 400 s.
        """
        deadline = time.monotonic() + _READY_S
        not_ready: dict[str, str] | None = None
        while time.monotonic() < deadline:
            not_ready = failed_checks(self.url)
            if not_ready == {}:
                return
            time.sleep(0.3)
        raise AssertionError(f"the stack did not become ready: {not_ready}; see {self.installation.logs}")

    def stop(self) -> None:
        """Stop all processes, and unmount the blob folder."""
        if self._db is not None:
            self._db[1].client.close()
        if self._watchdog is not None and self._watchdog.poll() is None:
            self._watchdog.terminate()
            try:
                self._watchdog.wait(240)
            except subprocess.TimeoutExpired:
                self._watchdog.kill()
                self._watchdog.wait(60)
        if self.replica_set is not None:
            self.replica_set.stop()
        if self.mounted:
            subprocess.run(["umount", "-l", self.blobs_root], check=True, timeout=20)

    @property
    def blobs_root(self) -> Path:
        """The folder of the blobs."""
        return self.installation.data / "blobs"

    @property
    def blobs(self) -> LocalBlobs:
        """The blob store."""
        return LocalBlobs(self.blobs_root)

    @property
    def db(self) -> Db:
        """The database at its current address. The upload threads use it too, so a lock guards the connection."""
        url = self.replica_set.url if self.replica_set is not None else self.installation.mongodb_url()
        with self._connection_lock:
            if self._db is None or self._db[0] != url:
                if self._db is not None:
                    self._db[1].client.close()
                self._db = (url, connect(settings.Mongo(url=url), app="faults"))
            return self._db[1]

    def redis(self) -> "redis.Redis":
        """Return a new Redis client, which the caller must close."""
        return redis.Redis.from_url(self.installation.redis_url(), socket_timeout=2, socket_connect_timeout=2)

    def connect_as_member(self) -> "MongoClient[dict[str, Any]]":
        """Return a new client of the primary with all rights, which the caller must close. The service has fewer."""
        if self.replica_set is None:
            return mongod.connect_as_member(self.installation.read_ports()["mongod"], self.installation.credentials(), _QUERY_S)
        primary = self.replica_set.primary()
        assert primary is not None
        return mongod.connect_as_member(primary.port, primary.credentials, _QUERY_S)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of this stack by kind. Only descendants of its own watchdog are included."""
        by_kind: dict[str, list[psutil.Process]] = {}
        assert self._watchdog is not None
        with suppress(psutil.Error):
            for process in psutil.Process(self._watchdog.pid).children(recursive=True):
                with suppress(psutil.Error):
                    by_kind.setdefault(_process_kind(process), []).append(process)
        return by_kind

    def kill(self, kind: str, index: int = 0) -> bool:
        """Send SIGKILL to one process of a kind. Return False when there is none at the moment."""
        candidates = self.processes().get(kind, [])
        if not candidates:
            return False
        try:
            candidates[index % len(candidates)].kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def mongodb_faults(self) -> dict[str, Callable[[], bool]]:
        """Return the faults of MongoDB by name. Each returns False when it cannot be injected at the moment."""
        if self.replica_set is None:
            return {"mongod killed": lambda: self.kill("mongod")}
        return {
            "primary killed": self.replica_set.kill_primary,
            "primary frozen": self.replica_set.freeze_primary,
            "primary stepped down": self.replica_set.step_down_primary,
        }

    def freeze(self, kind: str, seconds: float) -> bool:
        """Send SIGSTOP to a process, and SIGCONT after ``seconds``. Return False when there is no such process."""
        candidates = self.processes().get(kind, [])
        if not candidates:
            return False
        with suppress(psutil.NoSuchProcess):
            candidates[0].send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            candidates[0].send_signal(signal.SIGCONT)
        return True

    def fill_disk(self, seconds: float) -> bool:
        """Fill the file system of the blobs for ``seconds``. Return False when it could not be mounted."""
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


def _process_kind(process: psutil.Process) -> str:
    """Return the kind of a process by its command line and that of its parent."""
    line = " ".join(process.cmdline())
    parent_line = " ".join(process.parent().cmdline()) if process.parent() else ""
    by_supervisor = "supervisor.supervisord" in parent_line
    for part, name in (
        ("supervisor.supervisord", "supervisor"),
        ("worker.sandbox.child", "sandbox child"),
        ("worker.entrypoints.sweep", "sweep"),
    ):
        if part in line:
            return name
    for part, name in (("gunicorn", "web"), ("worker.entrypoints.images", "worker"), ("worker.entrypoints.inspections", "inspector"), ("worker.entrypoints.jobs", "jobs")):
        if part in line:
            return name if by_supervisor else f"{name} child"
    if "spawn_main" in line:
        names = {"worker.entrypoints.inspections": "inspector child", "worker.entrypoints.jobs": "jobs child"}
        return next((name for part, name in names.items() if part in parent_line), "worker child")
    for program, name in (("mongod", "mongod"), ("valkey-server", "redis"), ("redis-server", "redis")):
        if program in line.split(" ", 1)[0]:
            return name
    return "other"
