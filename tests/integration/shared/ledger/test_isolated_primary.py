"""An isolated primary shows data that may be rolled back, and no 202 is sent on the basis of such data.

The replica set has one data-bearing member. To isolate it, a second member is added that accepts connections and never responds: from
then on there is no majority, and the primary does not notice for ten minutes. In a real partition it would step down after ten seconds.
"""

import socket
from collections.abc import Iterator

import pymongo
import pytest
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.errors import CommitUnknown, InFlight, StoreAway
from shared.ids import new_batch_id
from shared.ledger import commits, settlement
from shared.ledger.idempotency import RequestKey, StoredResponse
from shared.storage.indexes import create_indexes
from shared.storage.mongo import Db, connect
from tests.support.ledger import new_batch

pytestmark = pytest.mark.slow
_NEVER_S = 600


class Majority:
    """The connection of a primary to its majority."""

    def __init__(self, server: Mongod) -> None:
        self._admin = pymongo.MongoClient[dict[str, object]](server.url).admin
        self._silent_server = socket.create_server(("127.0.0.1", 0))

    def cut(self) -> None:
        self._change(2)

    def restore(self) -> None:
        self._change(1)

    def close(self) -> None:
        self.restore()
        self._admin.client.close()
        self._silent_server.close()

    def _change(self, members: int) -> None:
        config = self._admin.command("replSetGetConfig")["config"]
        silent_member = {"_id": 1, "host": f"127.0.0.1:{self._silent_server.getsockname()[1]}", "priority": 0}
        config["members"] = [config["members"][0], silent_member][:members]
        config["settings"] |= {"electionTimeoutMillis": _NEVER_S * 1000, "heartbeatTimeoutSecs": _NEVER_S}
        config["version"] += 1
        self._admin.command("replSetReconfig", config, force=True)


class FindRecorder(CommandListener):
    """Records the collection, read concern level and time limit in milliseconds of every find command."""

    def __init__(self) -> None:
        self.finds: list[tuple[str, str, int]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            self.finds.append(
                (event.command["find"], event.command["readConcern"]["level"], event.command["maxTimeMS"])
            )

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Record nothing."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Record nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("cut") / "data") as mongod:
        yield mongod


@pytest.fixture
def majority(server: Mongod) -> Iterator[Majority]:
    connection = Majority(server)
    yield connection
    connection.close()


@pytest.fixture
def isolated_db(server: Mongod) -> Iterator[Db]:
    db = connect(settings.Mongo(url=server.url, database=f"test_{new_batch_id()}"), app="test")
    create_indexes(db)
    yield db
    db.client.close()


def test_a_commit_without_a_majority_has_an_unknown_outcome_and_so_has_its_retry(
    isolated_db: Db, majority: Majority
) -> None:
    request_key, batch = RequestKey("open:key", "print"), new_batch()
    majority.cut()
    with pytest.raises(CommitUnknown) as raised, pymongo.timeout(4):
        commits.commit_batch(
            isolated_db, batch, request_key=request_key, response_body={"batch_id": batch.id}, deadline_s=3
        )
    assert raised.value.extra == {"batch_id": batch.id}
    assert isolated_db.batches.count_documents({"_id": batch.id}) == 1  # the primary itself shows it
    with pytest.raises(InFlight) as in_flight, pymongo.timeout(2):
        commits.commit_batch(isolated_db, new_batch(), request_key=request_key)
    assert in_flight.value.retry_after
    majority.restore()
    stored = commits.commit_batch(isolated_db, new_batch(), request_key=request_key)
    assert stored == StoredResponse({"batch_id": batch.id}, batch.id)
    assert not commits.abandon(isolated_db, batch.id)


def test_a_tombstone_without_a_majority_does_not_allow_the_deletion_of_a_spool(
    isolated_db: Db, majority: Majority
) -> None:
    unknown = new_batch_id()
    majority.cut()
    for _ in range(2):  # first it is inserted; then it is found
        with pytest.raises(PyMongoError), pymongo.timeout(1):
            commits.abandon(isolated_db, unknown)
    majority.restore()
    assert commits.abandon(isolated_db, unknown)


def test_an_isolated_primary_cannot_say_that_a_batch_is_kept(isolated_db: Db, majority: Majority) -> None:
    """The majority may have deleted it, so no original of it may be restored."""
    batch = new_batch()
    commits.commit_batch(isolated_db, batch)
    majority.cut()
    with pytest.raises(StoreAway):
        settlement.is_kept(isolated_db, batch.id)
    majority.restore()
    assert settlement.is_kept(isolated_db, batch.id)


def test_every_document_behind_a_202_is_read_linearizably_with_a_time_limit(server: Mongod, isolated_db: Db) -> None:
    recorder, batch = FindRecorder(), new_batch()
    with pymongo.MongoClient[dict[str, object]](server.url, event_listeners=[recorder]) as client:
        db = client.get_database(isolated_db.name, write_concern=isolated_db.write_concern)
        request_key = RequestKey("open:key", "print")
        assert commits.commit_batch(db, batch, request_key=request_key, response_body={}) is None
        assert isinstance(commits.commit_batch(db, new_batch(), request_key=request_key), StoredResponse)
        assert not commits.abandon(db, batch.id)
    assert [(collection, level) for collection, level, _ in recorder.finds] == [
        (name, "linearizable") for name in ("idempotency", "batches", "ledger")
    ]
    assert all(0 < limit_ms <= 5000 for _, _, limit_ms in recorder.finds)
