"""A primary that is cut off from its majority shows what may be rolled back; nobody is told 202 by that.

The set has one server that bears data. To cut it off it is given a second member that takes connections and never answers: there is no
majority from then on, and the primary does not notice for ten minutes. A real partition would let it step down after ten seconds.
"""

import socket
from collections.abc import Iterator

import pymongo
import pytest
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.errors import CommitUnknown, InFlight
from shared.ids import new_batch_id
from shared.ledger import commits, idempotency
from shared.ledger.idempotency import Begun, Replay
from shared.storage.mongo import Db, connect
from shared.storage.schema import create_indexes
from tests.support.ledger import new_batch

pytestmark = pytest.mark.slow
_NEVER_S = 600


class Cut:
    """The way from a primary to its majority."""

    def __init__(self, server: Mongod) -> None:
        self._set = pymongo.MongoClient[dict[str, object]](server.url).admin
        self._silent = socket.create_server(("127.0.0.1", 0))

    def cut(self) -> None:
        self._change(2)

    def mend(self) -> None:
        self._change(1)

    def close(self) -> None:
        self.mend()
        self._set.client.close()
        self._silent.close()

    def _change(self, members: int) -> None:
        config = self._set.command("replSetGetConfig")["config"]
        silent = {"_id": 1, "host": f"127.0.0.1:{self._silent.getsockname()[1]}", "priority": 0}
        config["members"] = [config["members"][0], silent][:members]
        config["settings"] |= {"electionTimeoutMillis": _NEVER_S * 1000, "heartbeatTimeoutSecs": _NEVER_S}
        config["version"] += 1
        self._set.command("replSetReconfig", config, force=True)


class Asked(CommandListener):
    """Which documents a client asks for, how surely, and within how many milliseconds."""

    def __init__(self) -> None:
        self.finds: list[tuple[str, str, int]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            self.finds.append((event.command["find"], event.command["readConcern"]["level"], event.command["maxTimeMS"]))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """See ``CommandListener``."""

    def failed(self, event: CommandFailedEvent) -> None:
        """See ``CommandListener``."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("cut") / "data") as alone:
        yield alone


@pytest.fixture
def way(server: Mongod) -> Iterator[Cut]:
    made = Cut(server)
    yield made
    made.close()


@pytest.fixture
def there(server: Mongod) -> Iterator[Db]:
    db = connect(settings.Mongo(url=server.url, database=f"test_{new_batch_id()}"), app="test")
    create_indexes(db)
    yield db
    db.client.close()


def test_a_commit_that_no_majority_has_is_unknown_and_so_is_its_repetition(there: Db, way: Cut) -> None:
    begun, made = idempotency.begin(there, "open:key", "print"), new_batch()
    assert isinstance(begun, Begun)
    way.cut()
    with pytest.raises(CommitUnknown) as said, pymongo.timeout(4):
        commits.commit_batch(there, made, idempotency=begun, answer={"batch_id": made.id}, deadline_s=3)
    assert said.value.extra == {"batch_id": made.id}
    assert there.batches.count_documents({"_id": made.id}) == 1  # the primary itself shows it
    with pytest.raises(InFlight) as told, pymongo.timeout(2):
        idempotency.begin(there, "open:key", "print")
    assert told.value.retry_after
    way.mend()
    assert idempotency.begin(there, "open:key", "print") == Replay({"batch_id": made.id}, made.id)
    assert not commits.abandon(there, made.id)


def test_a_tombstone_that_no_majority_has_lets_no_spool_be_deleted(there: Db, way: Cut) -> None:
    never = new_batch_id()
    way.cut()
    for _ in range(2):  # it is written; then it is found
        with pytest.raises(PyMongoError), pymongo.timeout(1):
            commits.abandon(there, never)
    way.mend()
    assert commits.abandon(there, never)


def test_every_document_that_a_202_rests_on_is_asked_for_linearizably_and_not_for_long(server: Mongod, there: Db) -> None:
    asked, made = Asked(), new_batch()
    with pymongo.MongoClient[dict[str, object]](server.url, event_listeners=[asked]) as client:
        db = client.get_database(there.name, write_concern=there.write_concern)
        begun = idempotency.begin(db, "open:key", "print")
        assert isinstance(begun, Begun)
        commits.commit_batch(db, made, idempotency=begun, answer={})
        assert isinstance(idempotency.begin(db, "open:key", "print"), Replay)
        assert not commits.abandon(db, made.id)
    assert [(collection, level) for collection, level, _ in asked.finds] == [(name, "linearizable") for name in ("idempotency", "batches", "ledger")]
    assert all(0 < most_ms <= 5000 for _, _, most_ms in asked.finds)
