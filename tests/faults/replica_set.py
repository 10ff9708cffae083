"""A MongoDB replica set with three members on this machine, and the faults of its primary."""

import time
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from scripts.local.servers import mongod
from scripts.local.servers.credentials import create_credentials
from scripts.local.servers.ports import LOOPBACK
from scripts.local.temporary_servers import MongodMember, Server
from tests.support.service_stack import wait_until

_MEMBERS: Final = 3
_ELECTION_TIMEOUT_MS: Final = 2000
_FROZEN_S: Final = 8.0
"""Long enough for the other members to elect a new primary, so that the frozen one is a former primary when it continues."""
_STEP_DOWN_S: Final = 5
_READY_S: Final = 120


class ReplicaSet:
    """Three running members."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder`` for the data. ``start`` starts the members."""
        self.credentials = create_credentials(folder / "secrets")
        self._members = [MongodMember(folder / f"member-{number}", f"mongod-{number}", self.credentials) for number in range(_MEMBERS)]

    @property
    def url(self) -> str:
        """The connection string, with all members."""
        return mongod.members_url([member.port for member in self._members], self.credentials)

    def start(self) -> None:
        """Start the members, initiate the replica set, wait for its primary, and create the user of the service."""
        for member in self._members:
            member.start()
        config = {
            "_id": mongod.REPLICA_SET,
            "members": [{"_id": number, "host": _host(member)} for number, member in enumerate(self._members)],
            "settings": {"electionTimeoutMillis": _ELECTION_TIMEOUT_MS},
        }
        with _connect(self._members[0]) as client:
            client.admin.command("replSetInitiate", config)
        wait_until(self._has_user, _READY_S, "the replica set has a primary and a user")

    def stop(self) -> None:
        """Kill the members, and delete their data."""
        for member in self._members:
            member.remove()

    def primary(self) -> Server | None:
        """Return the member that is the primary now, or None while there is none."""
        for member in self._members:
            try:
                with _connect(member) as client:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return member
            except PyMongoError:
                continue
        return None

    def kill_primary(self) -> bool:
        """Kill the primary with SIGKILL, and start it again after an election. Return False when there is no primary."""
        primary = self.primary()
        if primary is None:
            return False
        primary.kill()
        time.sleep(2 * _ELECTION_TIMEOUT_MS / 1000)
        primary.start()
        return True

    def freeze_primary(self) -> bool:
        """Freeze the primary until the others have elected another one. Return False when there is no primary."""
        primary = self.primary()
        if primary is None:
            return False
        primary.pause()
        try:
            time.sleep(_FROZEN_S)
        finally:
            primary.resume()
        return True

    def step_down_primary(self) -> bool:
        """Make the primary step down. Return False when there is no primary, or when no secondary can take over now."""
        primary = self.primary()
        if primary is None:
            return False
        with _connect(primary) as client:
            try:
                client.admin.command("replSetStepDown", _STEP_DOWN_S, secondaryCatchUpPeriodSecs=_STEP_DOWN_S - 1)
            except OperationFailure:
                return False
        return True

    def _has_user(self) -> bool:
        """Create the user of the service on the primary. Return False while there is none."""
        primary = self.primary()
        if primary is None:
            return False
        with _connect(primary) as client:
            try:
                mongod.set_user(client, self.credentials, mongod.ADMINISTRATOR_ROLES)
            except PyMongoError:
                return False
        return True


def _host(member: Server) -> str:
    return f"{LOOPBACK}:{member.port}"


def _connect(member: Server) -> "MongoClient[dict[str, Any]]":
    return mongod.connect_as_member(member.port, member.credentials)
