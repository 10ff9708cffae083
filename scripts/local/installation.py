"""What belongs to one data folder: its paths, its ports, its environment, its processes."""

import fcntl
import hashlib
import json
import os
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from scripts.local import embedded_servers

ROOT: Final = Path(__file__).resolve().parents[2]
DEFAULT_DATA: Final = ROOT / "data"
REMEMBERED: Final = ("MONGODB_URL", "MONGODB_DATABASE", "REDIS_URL", "BLOBS_MIN_FREE_BYTES")
"""Variables of the start that ``scripts/status`` needs too, in whatever shell it runs."""
_FLOCK: Final = "hhqqi0q"
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


def _given() -> dict[str, str]:
    return {name: value for name in REMEMBERED if (value := os.environ.get(name))}


@dataclass(frozen=True, slots=True)
class Stage:
    """What a start is doing now, for people; ``since`` (monotonic seconds) is set while it waits for one living process."""

    text: str
    since: float | None = None

    @property
    def waited_s(self) -> float:
        """Seconds that it has waited for that process."""
        return 0.0 if self.since is None else time.monotonic() - self.since


@dataclass(frozen=True, slots=True)
class House:
    """One installation on one machine, living in ``data``. ``given`` holds what it was told of ``REMEMBERED``."""

    data: Path
    port: int
    workers: int
    own_mongo: bool = field(default_factory=lambda: not os.environ.get("MONGODB_URL"))
    own_redis: bool = field(default_factory=lambda: not os.environ.get("REDIS_URL"))
    given: dict[str, str] = field(default_factory=_given)

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
        kept = self.kept_ports()
        ports = {}
        for name in ("mongod", "redis"):
            port = kept.get(name)
            ports[name] = port if port is not None and embedded_servers.is_free(port) else embedded_servers.free_port()
        (self.run / "ports.json").write_text(json.dumps(ports) + "\n")
        return ports

    def kept_ports(self) -> dict[str, int]:
        """Give the servers' ports as they were chosen last; nothing before the first start."""
        try:
            kept = json.loads((self.run / "ports.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {name: port for name, port in kept.items() if isinstance(port, int)}

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """Give the variables that every process of this house gets, on top of the caller's own."""
        own = {
            "PYTHONPATH": str(ROOT),
            "BLOBS_ROOT": str(self.data / "blobs"),
            "WEB_PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if self.workers >= len(os.sched_getaffinity(0)) and "VISION_IN_TURN" not in os.environ:
            own["VISION_IN_TURN"] = "true"
        if self.own_mongo:
            own["MONGODB_URL"] = embedded_servers.mongo_url(ports["mongod"])
        if self.own_redis:
            own["REDIS_URL"] = embedded_servers.redis_url(ports["redis"])
        return own

    def commands(self, ports: dict[str, int]) -> dict[str, list[str]]:
        """Name the processes and how each is started, in the order of their start."""
        commands = {}
        if self.own_mongo:
            commands["mongod"] = embedded_servers.mongod_command(self.data / "mongodb", ports["mongod"])
        if self.own_redis:
            commands["redis"] = embedded_servers.redis_command(self.data / "redis", ports["redis"])
        commands["web"] = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "web/server/gunicorn_conf.py"), "web.app:create_app()"]
        for number in range(1, self.workers + 1):
            commands[f"worker-{number}"] = [sys.executable, "-m", "worker.entrypoints.images", "--name", f"worker-{number}"]
        commands["inspector"] = [sys.executable, "-m", "worker.entrypoints.inspections"]
        commands["sweep"] = [sys.executable, "-m", "worker.entrypoints.sweep"]
        return commands

    def remember(self) -> None:
        """Keep what this house was started with, for ``stop`` and ``status``; for its owner only, as URLs may hold passwords."""
        said = {"port": self.port, "workers": self.workers, "given": self.given}
        temp = self.run / "house.new"
        temp.unlink(missing_ok=True)  # one that a crash left may have another mode
        with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(said) + "\n")
        temp.replace(self.run / "house.json")

    def lock(self, patience_s: float = 0.0) -> IO[str] | None:
        """Take the folder for this process until the file is closed; None when another has it for all of ``patience_s``.

        It is a POSIX lock, so that ``holder`` can ask for it without taking it. Such a lock goes when the process closes *any*
        descriptor of the file: who holds it must not open the file again.
        """
        until = time.monotonic() + patience_s
        file = (self.run / "lock").open("a")
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    file.close()
                    return None
                time.sleep(0.05)  # a lock that is tried has no event to wait on
            else:
                return file

    def holder(self) -> int | None:
        """Give the pid of the process that holds the folder, None when none does. Asks only: no start is disturbed.

        The pid is 0 or less when the process is out of sight: in another container, or on another machine.
        """
        try:
            with (self.run / "lock").open() as file:
                asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        except FileNotFoundError:
            return None
        return None if kind == fcntl.F_UNLCK else int(pid)

    def tell(self, stage: Stage | None) -> None:
        """Say what the start is doing, None when it has come up."""
        path = self.run / "stage.json"
        if stage is None:
            path.unlink(missing_ok=True)
            return
        temp = path.with_suffix(".new")
        temp.write_text(json.dumps([stage.text, stage.since]))
        temp.replace(path)

    def told(self) -> Stage | None:
        """Read what ``tell`` said last."""
        try:
            return Stage(*json.loads((self.run / "stage.json").read_text()))
        except (FileNotFoundError, ValueError):
            return None

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
    given = said.get("given", {})
    return House(data, said["port"], said["workers"], "MONGODB_URL" not in given, "REDIS_URL" not in given, given)
