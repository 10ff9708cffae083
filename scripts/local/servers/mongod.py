"""An embedded mongod: a replica set with one member, which accepts no command without a password."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from scripts.local.servers import processes
from scripts.local.servers.credentials import Credentials
from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import LOOPBACK
from scripts.local.servers.programs import Program

REPLICA_SET: Final = "shelfsight"
ADMINISTRATOR_ROLES: Final[list[dict[str, str]]] = [{"role": "root", "db": "admin"}]
_USER: Final = "shelfsight"
_NAME: Final = "mongod"
_PROBE_MS: Final = 1000
_USER_NOT_FOUND: Final = 11
_AUTHENTICATION_FAILED: Final = 18
"""Error codes of MongoDB; see https://www.mongodb.com/docs/manual/reference/error-codes/"""


def command(program: Program, folder: Path, port: int, credentials: Credentials) -> list[str]:
    """Return the command line of a mongod that is a member of the replica set.

    Its data is in ``folder``, it listens on loopback only, and its cache is limited to 1 GB.
    """
    return [
        str(program.path),
        "--dbpath", str(folder),
        "--port", str(port),
        "--bind_ip", LOOPBACK,
        "--replSet", REPLICA_SET,
        "--auth",
        "--keyFile", str(credentials.key_file),
        # By default, whoever connects first from this machine may create the first user, even in a folder with data.
        "--setParameter", "enableLocalhostAuthBypass=false",
        # No query of the service contains JavaScript.
        "--noscripting",
        # Not zlib: before 6.0.27, 7.0.28 and 8.0.17, an unauthenticated message that it compressed could read memory of
        # the server (CVE-2025-14847).
        "--networkMessageCompressors", "snappy,zstd",
        "--wiredTigerCacheSizeGB", "1",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        # No transaction of the service waits longer than 10 s. With MongoDB's default, the transaction of a process
        # that has died would block its batch for a minute.
        "--setParameter", "transactionLifetimeLimitSeconds=15",
        "--nounixsocket",
        "--quiet",
    ]  # fmt: skip


def url(port: int, credentials: Credentials) -> str:
    """Return the connection string of the embedded replica set, with the user of the service."""
    return members_url([port], credentials)


def members_url(ports: Sequence[int], credentials: Credentials) -> str:
    """Return the connection string of a replica set whose members listen on these ports."""
    return f"{_user(credentials)}{','.join(f'{LOOPBACK}:{port}' for port in ports)}/?replicaSet={REPLICA_SET}&authSource=admin"


def direct_url(port: int, credentials: Credentials) -> str:
    """Return the connection string of a single server, whatever replica set it belongs to."""
    return f"{_user(credentials)}{LOOPBACK}:{port}/?directConnection=true&authSource=admin"


def connect_as_member(port: int, credentials: Credentials, timeout_s: float = 5.0) -> "MongoClient[dict[str, Any]]":
    """Return a client with all rights, which authenticates with the key file as the members of a replica set do.

    It needs no user in the database, so it also works with a new database, and with one that has no users yet.

    :param timeout_s: time limit in seconds for each response.
    """
    return MongoClient(
        LOOPBACK,
        port,
        username="__system",
        password=credentials.member_key,
        authSource="local",
        authMechanism="SCRAM-SHA-256",
        directConnection=True,
        serverSelectionTimeoutMS=_PROBE_MS,
        connectTimeoutMS=_PROBE_MS,
        socketTimeoutMS=int(timeout_s * 1000),
    )


def service_roles(database: str) -> list[dict[str, str]]:
    """Return the roles with which the service, its migrations and ``scripts/admin`` work.

    The last one only shows the progress of index builds, which belong to other users' operations.
    """
    return [
        {"role": "readWrite", "db": database},
        {"role": "dbAdmin", "db": database},
        {"role": "clusterMonitor", "db": "admin"},
    ]


def wait_until_primary(port: int, pid: int, credentials: Credentials, roles: list[dict[str, str]]) -> None:
    """Wait until the mongod with this pid is the primary of its replica set, and its user has these roles.

    If the replica set is new, this function initiates it. If the port has changed since the last start, it changes the
    configuration of the replica set to the new port. It creates the user, or sets the password and the roles of the
    user that exists.

    There is no time limit while the process runs. After a crash, the recovery of a large data folder on a slow disk
    takes many minutes, and a mongod that is killed during the recovery starts it again from the beginning.

    :raises Unusable: when the process ended, another program listens on the port, or the key file is another one than
        that with which the process was started.
    """
    process = processes.find(pid, _NAME)
    processes.wait_until_listening(process, port, _NAME)
    with connect_as_member(port, credentials) as client:
        while not _is_prepared(client, port, credentials, roles):
            processes.pause(process, _NAME)


def wait_until_listening(port: int, pid: int) -> None:
    """Wait until the mongod with this pid accepts connections. There is no time limit while it runs.

    :raises Unusable: when the process ended, or another program listens on the port.
    """
    processes.wait_until_listening(processes.find(pid, _NAME), port, _NAME)


def set_user(client: "MongoClient[dict[str, Any]]", credentials: Credentials, roles: list[dict[str, str]]) -> None:
    """Create the user of the service, or set the password and the roles of the user that exists.

    :param client: a client with all rights, which is connected to the primary.
    :raises PyMongoError: when that failed.
    """
    options: dict[str, Any] = {"pwd": credentials.mongodb_password, "roles": roles}
    try:
        client.admin.command("updateUser", _USER, **options)
    except OperationFailure as error:
        if error.code != _USER_NOT_FOUND:
            raise
        client.admin.command("createUser", _USER, **options)


def _user(credentials: Credentials) -> str:
    return f"mongodb://{_USER}:{credentials.mongodb_password}@"


def _is_prepared(client: "MongoClient[dict[str, Any]]", port: int, credentials: Credentials, roles: list[dict[str, str]]) -> bool:
    try:
        if not _is_primary(client, port):
            return False
        set_user(client, credentials, roles)
    except OperationFailure as error:
        if error.code == _AUTHENTICATION_FAILED:
            raise Unusable(f"mongod does not accept the key in {credentials.key_file}, because the file was replaced after mongod had started.") from error
        return False
    except PyMongoError:
        return False
    return True


def _is_primary(client: "MongoClient[dict[str, Any]]", port: int) -> bool:
    member = {"_id": 0, "host": f"{LOOPBACK}:{port}"}
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code == _AUTHENTICATION_FAILED:
            raise
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        return False
    if config["members"][0]["host"] != member["host"]:
        config["members"] = [member]
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
        return False
    return bool(client.admin.command("hello").get("isWritablePrimary"))
