"""The installation that belongs to one data folder: its paths, ports, environment and processes."""

import fcntl
import hashlib
import json
import os
import re
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any, Final

from scripts.local.servers import mongod, mongod_choice, redis_server
from scripts.local.servers.credentials import Credentials, load_credentials
from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import LOOPBACK, free_port, is_free
from scripts.local.servers.programs import Program
from scripts.local.servers.progress import Progress
from scripts.local.signing_key_setup import FILE_NAME, create_signing_keys
from shared.settings.access import needs_credentials

ROOT: Final = Path(__file__).resolve().parents[2]
DEFAULT_DATA: Final = ROOT / "data"
SAVED_VARIABLES: Final = (
    "MONGODB_URL", "MONGODB_DATABASE", "REDIS_URL", "BLOBS_MIN_FREE_BYTES", "SHELFSIGHT_ENV", "ACCESS", "WEB_HOST", "SIGNING_KEYS_FILE",
)  # fmt: skip
"""Environment variables of ``scripts/start`` whose values are saved, because ``scripts/status`` and ``scripts/admin`` need
the same values even if they are run in another shell."""
_PROCESS_FILES: Final = re.compile(r"(?:guard|supervisor|mongod|redis|web|worker-\d+|inspector|jobs|sweep)(?:\.pid|\.starts)")
_MAX_SOCKET_BYTES: Final = 107 - len(".4194304")
"""Maximum length of the path of the supervisor's socket. The kernel allows 107 bytes, and the supervisor first appends
its pid to the path."""
_FLOCK: Final = "hhqqi0q"
"""Format of ``struct flock`` on 64-bit Linux: type, whence, start, length, pid."""


def _read_variables() -> dict[str, str]:
    return {name: value for name in SAVED_VARIABLES if (value := os.environ.get(name))}


@dataclass(frozen=True, slots=True)
class Stage:
    """The current step of a start.

    ``text`` describes the step for people. While the step waits for a process, ``since`` is the time at which the wait
    began, in monotonic seconds; otherwise, it is None.
    """

    text: str
    since: float | None = None

    @property
    def waited_s(self) -> float:
        """The seconds for which this step has waited for a process; 0 if it is not waiting for one."""
        return 0.0 if self.since is None else time.monotonic() - self.since


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation on one machine. All its files are in ``data``.

    ``variables`` contains the names and values of those ``SAVED_VARIABLES`` that are set in the environment.
    ``has_given_keys`` is whether ``SIGNING_KEYS`` is set; its value is a secret, and is not saved.
    """

    data: Path
    port: int
    workers: int
    embedded_mongodb: bool = field(default_factory=lambda: not os.environ.get("MONGODB_URL"))
    embedded_redis: bool = field(default_factory=lambda: not os.environ.get("REDIS_URL"))
    variables: dict[str, str] = field(default_factory=_read_variables)
    has_given_keys: bool = field(default_factory=lambda: bool(os.environ.get("SIGNING_KEYS")))

    @property
    def run(self) -> Path:
        """The folder with the pid files, the ports and the supervisor's configuration."""
        return self.data / "run"

    @property
    def logs(self) -> Path:
        """The folder with the log files, one for each process."""
        return self.data / "logs"

    @property
    def secrets(self) -> Path:
        """The folder with the passwords of the embedded servers, and with the signing keys."""
        return self.run / "secrets"

    @property
    def signing_keys_file(self) -> Path | None:
        """The file of the keys that sign tokens and URLs; None if ``SIGNING_KEYS`` contains them."""
        if self.has_given_keys:
            return None
        given = self.variables.get("SIGNING_KEYS_FILE")
        return Path(given) if given else self.secrets / FILE_NAME

    @property
    def is_production(self) -> bool:
        """Whether the service may be reached from other machines."""
        return self.variables.get("SHELFSIGHT_ENV") == "production"

    @property
    def needs_credentials(self) -> bool:
        """Whether requests need credentials."""
        return needs_credentials(self.variables.get("SHELFSIGHT_ENV", ""), self.variables.get("ACCESS"))

    @property
    def web_host(self) -> str:
        """The host name or address on which the web front listens."""
        return self.variables.get("WEB_HOST") or LOOPBACK

    @property
    def url(self) -> str:
        """The URL of the web front for clients on this machine."""
        host = self.web_host
        with suppress(ValueError):  # the host is a name
            if ip_address(host).is_unspecified:
                host = "::1" if ":" in host else LOOPBACK
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def socket(self) -> Path:
        """The supervisor's Unix socket.

        It is not under ``data``, because the path of a socket must be short, and the path of ``data`` may be long. So
        may be the path of the folder for temporary files; then it is in ``/tmp``.
        """
        name = f"shelfsight-{os.getuid()}-{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]}.sock"
        path = Path(tempfile.gettempdir()) / name
        return path if len(os.fsencode(path)) <= _MAX_SOCKET_BYTES else Path("/tmp") / name  # noqa: S108 -- its path is short; see the docstring

    def remove_socket(self) -> None:
        """Remove the supervisor's socket if it exists.

        :raises Unusable: when another kind of file has its name.
        """
        if self.socket.is_socket():
            self.socket.unlink(missing_ok=True)
        elif self.socket.exists():
            raise Unusable(f"{self.socket} is not a socket; remove it.")

    def remove_process_files(self, suffix: str) -> None:
        """Remove the files with this suffix (``.pid`` or ``.starts``) of all processes, and no other files."""
        for path in self.run.iterdir():
            if path.suffix == suffix and _PROCESS_FILES.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def find_foreign_file(self) -> Path | None:
        """Return a file in ``run`` that no installation has written; None if there is none.

        The folder ``run`` of an installation contains its saved parameters, or at most the lock of a start that was
        interrupted before it could save them.
        """
        if (self.run / "house.json").exists() or not self.run.is_dir():
            return None
        return next((path for path in self.run.iterdir() if path.name not in {"lock", "house.new"}), None)

    def prepare(self) -> None:
        """Create the folders of the installation, and close those of an older version to other users.

        The folder of the blobs is closed only when it is created, because its owner may open it for a file server.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        is_used = (self.run / "house.json").exists()
        for folder in (self.run, self.logs, self.data / "mongodb", self.data / "redis"):
            folder.mkdir(mode=0o700, exist_ok=True)
            if is_used:  # otherwise, a folder with this name may belong to another program
                folder.chmod(0o700)
        (self.data / "blobs").mkdir(mode=0o700, exist_ok=True)

    def assign_ports(self) -> dict[str, int]:
        """Choose the ports of the embedded servers, save them, and return them by the name of the server.

        A port that an earlier start has saved is kept unless another program now uses it.
        """
        saved = self.read_ports()
        ports = {}
        for name in ("mongod", "redis"):
            port = saved.get(name)
            ports[name] = port if port is not None and is_free(port) else free_port()
        self._write_json("ports.json", ports)
        return ports

    def read_ports(self) -> dict[str, int]:
        """Return the ports that were last assigned to the embedded servers, by name; empty before the first start."""
        try:
            saved = json.loads((self.run / "ports.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {name: port for name, port in saved.items() if isinstance(port, int)}

    def credentials(self) -> Credentials:
        """Return the passwords of the embedded servers.

        :raises Unusable: when no start has generated them yet.
        """
        return load_credentials(self.secrets)

    def mongodb_url(self) -> str:
        """Return the connection string of the database that this installation uses.

        :raises Unusable: when an embedded server has never been started, or only by a version without passwords.
        """
        if not self.embedded_mongodb:
            return self.variables["MONGODB_URL"]
        return mongod.url(self._port("mongod"), self.credentials())

    def redis_url(self) -> str:
        """Return the URL of the Redis that this installation uses; see ``mongodb_url``."""
        if not self.embedded_redis:
            return self.variables["REDIS_URL"]
        return redis_server.url(self._port("redis"), self.credentials())

    def _port(self, name: str) -> int:
        port = self.read_ports().get(name)
        if port is None:
            raise Unusable(f"{name} has never been started with the data folder {self.data}.")
        return port

    def environment(self, ports: dict[str, int]) -> dict[str, str]:
        """Return the variables to add to the caller's environment for the processes of this installation.

        This creates the signing keys if there are none.

        :raises Unusable: when the signing keys are damaged, or there are no passwords yet.
        """
        variables = {
            "PYTHONPATH": str(ROOT),
            "BLOBS_ROOT": str(self.data / "blobs"),
            "WEB_PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if self.workers >= len(os.sched_getaffinity(0)) and "VISION_IN_TURN" not in os.environ:
            variables["VISION_IN_TURN"] = "true"
        if self.signing_keys_file is not None:
            if "SIGNING_KEYS_FILE" not in self.variables:
                create_signing_keys(self.signing_keys_file)
            variables["SIGNING_KEYS_FILE"] = str(self.signing_keys_file)
        if self.embedded_mongodb:
            variables["MONGODB_URL"] = mongod.url(ports["mongod"], self.credentials())
        if self.embedded_redis:
            variables["REDIS_URL"] = redis_server.url(ports["redis"], self.credentials())
        return variables

    def choose_programs(self, say: Callable[[str], None], show: Progress | None = None) -> dict[str, Program]:
        """Return the programs of the embedded servers by the name of the process.

        :param say: called with a sentence for each program that would have been better and cannot be used.
        :param show: shows the progress of a download; without it, nothing is downloaded.
        :raises Unusable: when this machine cannot run one of the servers.
        """
        programs = {}
        if self.embedded_mongodb:
            programs["mongod"] = mongod_choice.choose(self.data / "mongodb", say, show)
        if self.embedded_redis:
            programs["redis"] = redis_server.find_program()
        return programs

    def save_programs(self, programs: dict[str, Program]) -> None:
        """Save which programs are started, for ``scripts/status`` and, with the data of MongoDB, for the next start."""
        if "mongod" in programs:
            mongod_choice.record_version(self.data / "mongodb", programs["mongod"])
        self._write_json("servers.json", {name: [program.name, program.version] for name, program in programs.items()})

    def read_programs(self) -> dict[str, tuple[str, str]]:
        """Return the names and the versions of the embedded servers that were last started, by the name of the process."""
        try:
            saved = json.loads((self.run / "servers.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {name: (program, version) for name, (program, version) in saved.items()}

    def _write_json(self, name: str, value: Any) -> None:
        """Write a file in ``run``. Other processes read the old or the new content, and never a part of it."""
        temp = (self.run / name).with_suffix(".new")
        temp.write_text(json.dumps(value) + "\n")
        temp.replace(self.run / name)

    def commands(self, ports: dict[str, int], programs: dict[str, Program]) -> dict[str, list[str]]:
        """Return the command lines of the processes by name, in the order in which the processes are started."""
        commands = {}
        if self.embedded_mongodb:
            commands["mongod"] = mongod.command(programs["mongod"], self.data / "mongodb", ports["mongod"], self.credentials())
        if self.embedded_redis:
            commands["redis"] = redis_server.command(programs["redis"], self.data / "redis", ports["redis"], self.credentials())
        commands["web"] = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "web/server/gunicorn_conf.py"), "web.app:create_app()"]
        for number in range(1, self.workers + 1):
            commands[f"worker-{number}"] = [sys.executable, "-m", "worker.entrypoints.images", "--name", f"worker-{number}"]
        commands["inspector"] = [sys.executable, "-m", "worker.entrypoints.inspections"]
        commands["jobs"] = [sys.executable, "-m", "worker.entrypoints.jobs"]
        commands["sweep"] = [sys.executable, "-m", "worker.entrypoints.sweep"]
        return commands

    def save(self) -> None:
        """Save the parameters of this start for ``scripts/stop`` and ``scripts/status``.

        Only the owner can read the file, because URLs may contain passwords.
        """
        parameters = {"port": self.port, "workers": self.workers, "given": self.variables, "given_keys": self.has_given_keys}
        temp = self.run / "house.new"
        temp.unlink(missing_ok=True)  # a file left behind by a crash may have another mode
        with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(parameters) + "\n")
        temp.replace(self.run / "house.json")

    def acquire_lock(self, timeout_s: float = 0.0) -> IO[str] | None:
        """Lock the data folder for this process until the returned file is closed.

        This is a POSIX lock, so that ``find_lock_holder`` can query it without acquiring it. Such a lock is released
        when the process closes *any* descriptor of the file, so the process that holds the lock must not open the file
        again.

        :returns: the open lock file, or None if another process still holds the lock after ``timeout_s`` seconds.
        """
        until = time.monotonic() + timeout_s
        file = (self.run / "lock").open("a")
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    file.close()
                    return None
                time.sleep(0.05)  # poll, because there is no event for the release of a lock
            else:
                return file

    def find_lock_holder(self) -> int | None:
        """Return the pid of the process that holds the lock; None if no process holds it.

        This method does not acquire the lock, not even briefly, because a process that is starting could then fail to
        acquire it. The pid is 0 or less if the process that holds the lock runs in another container or on another
        machine, because its pid is not visible here.
        """
        try:
            with (self.run / "lock").open() as file:
                query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, query))
        except FileNotFoundError:
            return None
        return None if kind == fcntl.F_UNLCK else int(pid)

    def write_stage(self, stage: Stage | None) -> None:
        """Save the current step of the start; None means that the start is complete."""
        path = self.run / "stage.json"
        if stage is None:
            path.unlink(missing_ok=True)
            return
        temp = path.with_suffix(".new")
        temp.write_text(json.dumps([stage.text, stage.since]))
        temp.replace(path)

    def read_stage(self) -> Stage | None:
        """Return the step that ``write_stage`` saved last; None if no start is in progress."""
        try:
            return Stage(*json.loads((self.run / "stage.json").read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def pid(self, name: str) -> int | None:
        """Return the pid of a process of this installation; None if the process is not running."""
        try:
            pid = int((self.run / f"{name}.pid").read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return None
        return pid


def data_folder(path: Path) -> Path:
    """Return the path of a data folder as all scripts spell it: absolute, and without symbolic links.

    A loop of links is no error here; using the folder is.
    """
    return Path(os.path.realpath(path))


def load_installation(data: Path) -> Installation | None:
    """Return the installation that was last started with this data folder; None if the folder was never used.

    :raises PermissionError: when the folder belongs to another user.
    """
    try:
        saved = json.loads((data / "run/house.json").read_text())
    except PermissionError:
        raise
    except (OSError, ValueError):  # there is no such file, or ``data`` is a file or a loop of links
        return None
    variables = saved.get("given", {})
    embedded = ("MONGODB_URL" not in variables, "REDIS_URL" not in variables)
    return Installation(data, saved["port"], saved["workers"], *embedded, variables, saved.get("given_keys", False))
