"""A batch is accepted in one transaction or never, whether or not the response to the commit arrives."""

import threading
from collections.abc import Iterator

import pymongo
import pytest
from pymongo.errors import ExecutionTimeout, PyMongoError

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.errors import CommitUnknown, StoreAway
from shared.ids import new_batch_id
from shared.ledger import audit, claims, commits, idempotency, turns
from shared.storage.mongo import Db, connect
from tests.support.ledger import commit_new_batch, new_batch, validate_documents
from tests.support.mongo_proxy import CommitFault, CommitFaultProxy


@pytest.fixture
def connect_through(mongod: Mongod, mongo: settings.Mongo, db: Db) -> Iterator["ProxiedConnections"]:
    """Connections to the test's database through cutting proxies."""
    connections = ProxiedConnections(mongod, mongo)
    yield connections
    connections.close()
    db.client.admin.command("killAllSessions", [])  # a transaction without its commit stays open for a minute otherwise


class ProxiedConnections:
    def __init__(self, server: Mongod, mongo: settings.Mongo) -> None:
        self._server, self._mongo = server, mongo
        self.proxies: list[CommitFaultProxy] = []
        self._dbs: list[Db] = []

    def __call__(self, fault: CommitFault, *, refuse_reconnects: bool = False) -> Db:
        proxy = CommitFaultProxy(self._server.port, fault, refuse_reconnects=refuse_reconnects)
        self.proxies.append(proxy)
        # A direct connection: with the address of the replica set's member the driver would bypass the proxy.
        url = self._server.direct_url(proxy.port)
        db = connect(self._mongo.model_copy(update={"url": url}), app="cut")
        self._dbs.append(db)
        return db

    def close(self) -> None:
        for db in self._dbs:
            db.client.close()
        for proxy in self.proxies:
            proxy.close()


def count_documents(db: Db, batch_id: str) -> tuple[int, int, int]:
    accepted = db.ledger.count_documents({"_id": batch_id, "state": "accepted"})
    return accepted, db.batches.count_documents({"_id": batch_id}), db.images.count_documents({"batch_id": batch_id})


def test_a_commit_stores_all_documents_of_a_batch(db: Db) -> None:
    batch_id = commit_new_batch(db, 3, ["a", "b", "a"])
    assert count_documents(db, batch_id) == (1, 1, 3)
    header = db.batches.find_one({"_id": batch_id})
    assert header is not None
    assert header["stores"] == ["a", "b"]
    assert header["bytes"] == 3000
    assert {turn["store"] for turn in db.store_turns.find({"pending": True})} == {"a", "b"}
    assert validate_documents(db) >= 7


@pytest.mark.slow
def test_a_commit_whose_response_was_lost_is_found_to_have_taken_place(
    db: Db, connect_through: ProxiedConnections
) -> None:
    batch = new_batch()
    commits.commit_batch(connect_through("lose_answer"), batch)  # no error: the batch was accepted
    assert connect_through.proxies[0].cuts >= 2  # the driver's own retry was cut as well
    assert count_documents(db, batch.id) == (1, 1, 4)
    turns.touch(db, batch.turns())  # as the caller of the commit does
    assert len(claims.claim(db, "w", 32, 60).images) == 4


@pytest.mark.slow
def test_a_lost_response_and_an_unreachable_server_raise_an_error_that_names_the_batch(
    db: Db, connect_through: ProxiedConnections
) -> None:
    batch = new_batch()
    request_key, body = idempotency.RequestKey("open:k", "print"), {"batch_id": batch.id}
    with pytest.raises(CommitUnknown) as raised:
        commits.commit_batch(
            connect_through("lose_answer", refuse_reconnects=True), batch, request_key=request_key, response_body=body
        )
    assert raised.value.extra == {"batch_id": batch.id}
    # The batch had been accepted; a retry with the same key returns its response.
    assert commits.commit_batch(db, new_batch(), request_key=request_key) == idempotency.StoredResponse(body, batch.id)
    assert not commits.abandon(db, batch.id)


@pytest.mark.slow
def test_a_commit_that_never_arrived_stores_nothing_and_raises_an_error(
    db: Db, connect_through: ProxiedConnections
) -> None:
    batch = new_batch()
    with pytest.raises((StoreAway, CommitUnknown)):
        commits.commit_batch(connect_through("lose_commit"), batch, deadline_s=2)
    assert count_documents(db, batch.id) == (0, 0, 0)


def test_a_failed_spool_prevents_the_commit(db: Db) -> None:
    batch = new_batch()
    remaining: list[float] = []

    def fail(seconds: float) -> None:
        remaining.append(seconds)
        raise StoreAway("The disk failed.")

    with pytest.raises(StoreAway):
        commits.commit_batch(db, batch, wait_for_spool=fail)
    assert 0 < remaining[0] <= 5
    assert count_documents(db, batch.id) == (0, 0, 0)
    assert db.write_concern.document["w"] == "majority"
    assert db.write_concern.document["j"] is True


def test_a_tombstone_prevents_a_late_commit(db: Db) -> None:
    batch = new_batch()
    assert commits.abandon(db, batch.id)  # the sweep is about to delete the spool
    assert commits.abandon(db, batch.id)  # which it may do twice
    with pytest.raises(StoreAway):
        commits.commit_batch(db, batch)  # a frozen web process continues
    assert count_documents(db, batch.id) == (0, 0, 0)
    assert commits.find_accepted(db, [batch.id]) == set()
    assert not claims.claim(db, "w", 32, 60).images
    validate_documents(db)


@pytest.mark.slow
def test_no_tombstone_is_inserted_while_a_commit_is_open(db: Db, connect_through: ProxiedConnections) -> None:
    batch = new_batch()
    delayed = connect_through("hold_commit", refuse_reconnects=True)
    errors: list[Exception] = []

    def send() -> None:
        try:
            commits.commit_batch(delayed, batch, deadline_s=4)
        except CommitUnknown as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(60)
    assert len(errors) == 1
    with pytest.raises(PyMongoError), pymongo.timeout(1):
        commits.abandon(db, batch.id)  # the transaction is open: the outcome is unknown, and no spool is deleted
    connect_through.proxies[0].release_commits()
    with pymongo.timeout(10):
        assert not commits.abandon(db, batch.id)
    assert count_documents(db, batch.id) == (1, 1, 4)


def test_a_batch_with_an_existing_id_changes_nothing(db: Db) -> None:
    first = new_batch(2)
    commits.commit_batch(db, first)
    with pytest.raises(StoreAway):
        commits.commit_batch(db, new_batch(5, id=first.id))
    assert count_documents(db, first.id) == (1, 1, 2)
    assert audit.balance(db)["received"] == 2


@pytest.mark.slow
def test_nothing_is_accepted_when_no_server_responds(mongo: settings.Mongo) -> None:
    unreachable = connect(
        mongo.model_copy(
            update={"url": "mongodb://127.0.0.1:1/?directConnection=true", "server_selection_timeout_s": 0.3}
        ),
        app="test",
    )
    with pytest.raises(StoreAway):
        commits.commit_batch(unreachable, new_batch())
    unreachable.client.close()


def test_ids_of_accepted_batches_are_found_among_others(db: Db) -> None:
    accepted, unknown = commit_new_batch(db), new_batch_id()
    assert commits.find_accepted(db, [accepted, unknown]) == {accepted}


def test_a_commit_whose_time_is_over_is_not_called_a_slow_query(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver raises the same error as for a slow query, sometimes: when the server notices the deadline first."""
    batch = new_batch(2)

    def exceed(*_: object) -> None:
        raise ExecutionTimeout("operation exceeded time limit", 50)

    monkeypatch.setattr(commits, "_insert", exceed)
    with pytest.raises(StoreAway, match="nothing was accepted") as refused:
        commits.commit_batch(db, batch)
    assert (refused.value.code, refused.value.retry_after) == ("database_unavailable", 2)
    assert db.batches.find_one({"_id": batch.id}) is None
