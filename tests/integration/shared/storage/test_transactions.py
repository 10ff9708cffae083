"""Transactions are committed like every other write: journalled by a majority of the servers, within a time limit."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from shared import settings
from shared.errors import ShelfsightError, StoreAway
from shared.storage.mongo import Db, connect, run_raw_transaction, run_transaction


class CommitRecorder(CommandListener):
    """Records the write concern of each commit, and the read concern of each first operation of a transaction."""

    def __init__(self) -> None:
        self.writes: list[dict[str, Any]] = []
        self.reads: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "commitTransaction":
            self.writes.append(dict(event.command["writeConcern"]))
        if event.command.get("startTransaction"):
            self.reads.append(dict(event.command["readConcern"]))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Record nothing."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Record nothing."""


@pytest.fixture
def recorder() -> CommitRecorder:
    return CommitRecorder()


@pytest.fixture
def recorded_db(mongo: settings.Mongo, db: Db, recorder: CommitRecorder) -> Iterator[Db]:
    """Return ``db`` with the options of ``connect``, over a client that reports to the recorder."""
    options = connect(mongo, app="test")
    options.client.close()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo.url, event_listeners=[recorder])
    yield client.get_database(db.name, write_concern=options.write_concern, read_concern=options.read_concern)
    client.close()


@pytest.mark.parametrize("run", [run_transaction, run_raw_transaction])
def test_a_commit_is_journalled_by_a_majority(recorded_db: Db, recorder: CommitRecorder, run: Callable[..., Any]) -> None:
    def write(session: ClientSession) -> str:
        recorded_db.tags.insert_one({"_id": "a"}, session=session)
        return "result"

    assert run(recorded_db, write, 60) == "result"
    (concern,) = recorder.writes
    assert (concern["w"], concern["j"]) == ("majority", True)
    assert [read["level"] for read in recorder.reads] == ["local"]
    assert recorded_db.tags.count_documents({}) == 1


@pytest.mark.parametrize(("run", "expected"), [(run_transaction, ShelfsightError), (run_raw_transaction, DuplicateKeyError)])
def test_an_error_undoes_the_transaction_and_is_converted_unless_the_caller_does_it(db: Db, run: Callable[..., Any], expected: type[Exception]) -> None:
    def write(session: ClientSession) -> None:
        for _ in range(2):
            db.events.insert_one({"_id": "a"}, session=session)

    with pytest.raises(expected):
        run(db, write, 60)
    assert db.events.count_documents({}) == 0


def test_a_transaction_whose_time_is_over_leaves_no_lock(db: Db) -> None:
    db.counters.insert_one({"_id": "a", "n": 0})

    def write(session: ClientSession) -> None:
        db.counters.update_one({"_id": "a"}, {"$inc": {"n": 1}}, session=session)
        time.sleep(0.6)  # longer than the time limit
        db.counters.find_one({"_id": "a"}, session=session)

    with pytest.raises(StoreAway):
        run_transaction(db, write, 0.5)
    db.counters.update_one({"_id": "a"}, {"$inc": {"n": 1}})
    assert db.counters.find_one({"_id": "a"}) == {"_id": "a", "n": 1}
