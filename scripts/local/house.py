"""What belongs to one data folder: its paths, its ports, its environment, its processes."""

import fcntl
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from scripts.local import embedded

ROOT: Final = Path(__file__).resolve().parents[2]
DEFAULT_DATA: Final = ROOT / "data"


@dataclass(frozen=True, slots=True)
class House:
    """One installation on one machine, living in ``data``."""

    data: Path
    port: int
    workers: int
    own_mongo: bool = field(default_factory=lambda: "MONGODB_URL" not in os.environ)
    own_redis: bool = field(default_factory=lambda: "REDIS_URL" not in os.environ)

    @property
    def run(self) -> Path:
        """Pid files, ports, the supervisor's configuration."""
        return self.data / "run"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.data / "logs"

    @property
    def socket(self) -> Path:
        """The supervisor's socket. Not under ``data``: such a path may be too long for a socket."""
        name = hashlib.sha256(str(self.data).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"shelfsight-{os.getuid()}-{name}.sock"

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self.run, self.logs, self.data / "mongodb", self.data / "redis", self.data / "blobs"):
            folder.mkdir(parents=True, exist_ok=True)

    def ports(self) -> dict[str, int]:
        """Choose the servers' ports once and keep them; one that somebody took meanwhile is chosen anew."""
        path = self.run / "ports.json"
        try:
            known = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        ports = {}
        for name in ("mongod", "redis"):
            port = known.get(name)
            ports[name] = port if isinstance(port, int) and embedded.is_free(port) else embedded.free_port()
        path.write_text(json.dumps(ports) + "\n")
        return ports

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """Give the variables that every process of this house gets, on top of the caller's own."""
        own = {
            "PYTHONPATH": str(ROOT),
            "BLOBS_ROOT": str(self.data / "blobs"),
            "WEB_PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if self.own_mongo:
            own["MONGODB_URL"] = embedded.mongo_url(ports["mongod"])
        if self.own_redis:
            own["REDIS_URL"] = embedded.redis_url(ports["redis"])
        return own

    def commands(self, ports: dict[str, int]) -> dict[str, list[str]]:
        """Name the processes and how each is started, in the order of their start."""
        commands = {}
        if self.own_mongo:
            commands["mongod"] = embedded.mongod_command(self.data / "mongodb", ports["mongod"])
        if self.own_redis:
            commands["redis"] = embedded.redis_command(self.data / "redis", ports["redis"])
        commands["web"] = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "web/gunicorn_conf.py"), "web.app:create_app()"]
        for number in range(1, self.workers + 1):
            commands[f"worker-{number}"] = [sys.executable, "-m", "worker.main", "--name", f"worker-{number}"]
        commands["sweep"] = [sys.executable, "-m", "worker.sweep"]
        return commands

    def remember(self) -> None:
        """Keep what this house was started with, for ``stop`` and ``status``."""
        (self.run / "house.json").write_text(json.dumps({"port": self.port, "workers": self.workers}) + "\n")

    def lock(self) -> IO[str] | None:
        """Take the folder for this process as long as the file stays open; None when another has it."""
        file = (self.run / "lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def pid(self, name: str) -> int | None:
        """Give the pid of a process that runs, or None."""
        try:
            pid = int((self.run / f"{name}.pid").read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return None
        return pid


def known(data: Path) -> House | None:
    """Find the house that was last started over a data folder."""
    try:
        said = json.loads((data / "run/house.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return House(data, said["port"], said["workers"])
