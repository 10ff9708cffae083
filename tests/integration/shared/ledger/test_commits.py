"""A batch becomes true in one transaction or never, whatever becomes of the answer."""

import threading
from collections.abc import Iterator

import pymongo
import pytest
from pymongo.errors import PyMongoError

from scripts.local.temporary_servers import Mongod
from shared import settings
from shared.errors import CommitUnknown, StoreAway
from shared.ids import new_batch_id
from shared.ledger import audit, claims, commits, idempotency, store_rotation
from shared.storage.mongo import Db, connect
from tests.support.ledger import commit_new_batch, new_batch, validate_documents
from tests.support.mongo_proxy import CommitFault, CommitFaultProxy


@pytest.fixture
def through(mongod: Mongod, mongo: settings.Mongo, db: Db) -> Iterator["Through"]:
    """Connect to the test's database through a cutting proxy."""
    made = Through(mongod.port, mongo)
    yield made
    made.close()
    db.client.admin.command("killAllSessions", [])  # a transaction without its commit stays open for a minute otherwise


class Through:
    def __init__(self, port: int, mongo: settings.Mongo) -> None:
        self._port, self._mongo = port, mongo
        self.proxies: list[CommitFaultProxy] = []
        self._dbs: list[Db] = []

    def __call__(self, way: CommitFault, *, away: bool = False) -> Db:
        proxy = CommitFaultProxy(self._port, way, refuse_reconnects=away)
        self.proxies.append(proxy)
        # A direct connection: by the replica set's own address the driver would go round the proxy.
        url = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        db = connect(self._mongo.model_copy(update={"url": url}), app="cut")
        self._dbs.append(db)
        return db

    def close(self) -> None:
        for db in self._dbs:
            db.client.close()
        for proxy in self.proxies:
            proxy.close()


def traces(db: Db, batch_id: str) -> tuple[int, int, int]:
    line = db.ledger.count_documents({"_id": batch_id, "state": "accepted"})
    return line, db.batches.count_documents({"_id": batch_id}), db.images.count_documents({"batch_id": batch_id})


def test_all_of_a_batch_is_there_and_valid(db: Db) -> None:
    batch_id = commit_new_batch(db, 3, ["a", "b", "a"])
    assert traces(db, batch_id) == (1, 1, 3)
    header = db.batches.find_one({"_id": batch_id})
    assert header is not None
    assert header["stores"] == ["a", "b"]
    assert header["bytes"] == 3000
    assert {turn["_id"] for turn in db.turns.find({"pending": True})} == {"a", "b"}
    assert validate_documents(db) >= 7


@pytest.mark.slow
def test_a_lost_answer_to_a_commit_that_took_place_is_found_out(db: Db, through: Through) -> None:
    made = new_batch()
    commits.commit_batch(through("lose_answer"), made)  # no error: it was accepted
    assert through.proxies[0].cuts >= 2  # the driver's own second try was cut as well
    assert traces(db, made.id) == (1, 1, 4)
    store_rotation.touch(db, {image.store_name for image in made.images})  # as the one who asked for the commit does
    assert len(claims.claim(db, "w", 32, 60).images) == 4


@pytest.mark.slow
def test_a_lost_answer_and_a_server_that_stays_away_names_the_batch(db: Db, through: Through) -> None:
    made = new_batch()
    begun = idempotency.begin(db, "open:k", "print")
    assert isinstance(begun, idempotency.Begun)
    with pytest.raises(CommitUnknown) as said:
        commits.commit_batch(through("lose_answer", away=True), made, idempotency=begun, answer={"batch_id": made.id})
    assert said.value.extra == {"batch_id": made.id}
    # It had been accepted; the retry with the same key says so.
    assert idempotency.begin(db, "open:k", "print") == idempotency.Replay({"batch_id": made.id}, made.id)
    assert not commits.abandon(db, made.id)


@pytest.mark.slow
def test_a_commit_that_never_arrived_leaves_nothing_and_is_never_called_accepted(db: Db, through: Through) -> None:
    made = new_batch()
    with pytest.raises((StoreAway, CommitUnknown)):
        commits.commit_batch(through("lose_commit"), made, deadline_s=2)
    assert traces(db, made.id) == (0, 0, 0)


def test_bytes_that_are_not_kept_keep_the_commit_out(db: Db) -> None:
    made = new_batch()
    left: list[float] = []

    def fail(seconds: float) -> None:
        left.append(seconds)
        raise StoreAway("as the test says")

    with pytest.raises(StoreAway):
        commits.commit_batch(db, made, bytes_kept=fail)
    assert 0 < left[0] <= 5
    assert traces(db, made.id) == (0, 0, 0)
    assert db.write_concern.document["w"] == "majority"
    assert db.write_concern.document["j"] is True


def test_a_tombstone_keeps_a_late_commit_out(db: Db) -> None:
    made = new_batch()
    assert commits.abandon(db, made.id)  # the sweep is about to delete the spool
    assert commits.abandon(db, made.id)  # and may do so twice
    with pytest.raises(StoreAway):
        commits.commit_batch(db, made)  # the frozen web process wakes up
    assert traces(db, made.id) == (0, 0, 0)
    assert commits.spooled_batches(db, [made.id]) == set()
    assert not claims.claim(db, "w", 32, 60).images
    validate_documents(db)


@pytest.mark.slow
def test_a_tombstone_never_lands_on_a_commit_that_is_on_its_way(db: Db, through: Through) -> None:
    made = new_batch()
    late = through("hold_commit", away=True)
    failed: list[Exception] = []

    def send() -> None:
        try:
            commits.commit_batch(late, made, deadline_s=4)
        except CommitUnknown as error:
            failed.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(60)
    assert len(failed) == 1
    with pytest.raises(PyMongoError), pymongo.timeout(1):
        commits.abandon(db, made.id)  # the transaction is still open: no answer, so no spool is deleted
    through.proxies[0].release_commits()
    with pymongo.timeout(10):
        assert not commits.abandon(db, made.id)
    assert traces(db, made.id) == (1, 1, 4)


def test_a_batch_with_a_taken_id_changes_nothing(db: Db) -> None:
    first = new_batch(2)
    commits.commit_batch(db, first)
    with pytest.raises(StoreAway):
        commits.commit_batch(db, new_batch(5, id=first.id))
    assert traces(db, first.id) == (1, 1, 2)
    assert audit.balance(db)["received"] == 2


@pytest.mark.slow
def test_nothing_is_accepted_when_nobody_answers(mongo: settings.Mongo) -> None:
    nobody = connect(
        mongo.model_copy(
            update={"url": "mongodb://127.0.0.1:1/?directConnection=true", "server_selection_timeout_s": 0.3}
        ),
        app="test",
    )
    with pytest.raises(StoreAway):
        commits.commit_batch(nobody, new_batch())
    nobody.client.close()


def test_spools_of_accepted_batches_are_told_from_others(db: Db) -> None:
    there, never = commit_new_batch(db), new_batch_id()
    assert commits.spooled_batches(db, [there, never]) == {there}
