"""Which request an ``Idempotency-Key`` belongs to, in all states of its record."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from shared import settings
from shared.errors import Gone, IdempotencyMismatch, InFlight, StoreAway
from shared.ledger import commits, deletion, idempotency
from shared.ledger.commits import NewBatch
from shared.ledger.idempotency import RequestKey, StoredResponse
from shared.storage.mongo import Db, connect
from tests.support.ledger import new_batch, utc_now, validate_documents

_KEY: Final = RequestKey("open:key", "print")
_OTHER: Final = RequestKey("open:key", "another")


def commit(
    db: Db, batch: NewBatch, request_key: RequestKey = _KEY, during: Callable[[], object] = lambda: None, **options: Any
) -> StoredResponse | None:
    """Commit a batch, and call ``during`` while its transaction is open."""
    body = {"batch_id": batch.id}
    return commits.commit_batch(
        db, batch, request_key=request_key, response_body=body, wait_for_spool=lambda _: void(during()), **options
    )


def void(_: object) -> None:
    """Discard a value."""


def response_of(batch: NewBatch) -> StoredResponse:
    return StoredResponse({"batch_id": batch.id}, batch.id)


def expire(db: Db) -> None:
    db.idempotency.update_one({"_id": _KEY.key}, {"$set": {"expires_at": utc_now() - timedelta(seconds=1)}})


def accepted(db: Db) -> list[str]:
    """Return the ids of the accepted batches, and check that they have all documents."""
    ids = [row["_id"] for row in db.batches.find()]
    assert [row["_id"] for row in db.ledger.find()] == ids
    assert set(db.images.distinct("batch_id")) == set(ids)
    return ids


def test_a_repeated_request_gets_the_first_response(db: Db) -> None:
    batch = new_batch()
    body = {"batch_id": batch.id, "images": [{"extra": "$not a field path"}]}
    assert commits.commit_batch(db, batch, request_key=_KEY, response_body=body) is None
    assert commit(db, new_batch()) == StoredResponse(body, batch.id)
    assert accepted(db) == [batch.id]
    record = db.idempotency.find_one()
    assert record is not None
    assert timedelta(hours=23, minutes=59) < record["expires_at"] - utc_now() <= timedelta(hours=24)
    validate_documents(db)


def test_another_request_with_the_key_is_refused_during_and_after_the_first(db: Db) -> None:
    batch = new_batch()

    def send_another() -> None:
        with pytest.raises(InFlight):
            commit(db, new_batch(), _OTHER)

    assert commit(db, batch, during=send_another) is None
    with pytest.raises(IdempotencyMismatch):
        commit(db, new_batch(), _OTHER)
    assert accepted(db) == [batch.id]


def test_a_repeated_request_is_told_to_wait_while_the_first_is_in_progress(db: Db) -> None:
    batch = new_batch()

    def repeat() -> None:
        with pytest.raises(InFlight) as raised:
            commit(db, new_batch())
        assert raised.value.retry_after

    assert commit(db, batch, during=repeat) is None
    assert commit(db, new_batch()) == response_of(batch)


def test_requests_with_other_keys_do_not_wait(db: Db) -> None:
    first, second = new_batch(), new_batch()
    commit(db, first, during=lambda: commit(db, second, RequestKey("open:other", "print")))
    assert sorted(accepted(db)) == sorted([first.id, second.id])


def test_of_concurrent_requests_one_is_accepted_and_the_others_wait_or_get_its_response(db: Db) -> None:
    outcomes: list[StoredResponse | None] = []
    refusals: list[InFlight] = []
    barrier = threading.Barrier(8)

    def request() -> None:
        barrier.wait()
        try:
            outcomes.append(commit(db, new_batch()))
        except InFlight as error:
            refusals.append(error)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (batch_id,) = accepted(db)
    assert outcomes.count(None) == 1
    assert [outcome for outcome in outcomes if outcome] == [StoredResponse({"batch_id": batch_id}, batch_id)] * (len(outcomes) - 1)
    assert len(outcomes) + len(refusals) == 8


def test_a_request_whose_transaction_mongodb_has_ended_gets_the_response_of_its_successor(db: Db) -> None:
    """MongoDB ends the transaction of a frozen process. When the process continues, it can no longer commit."""
    frozen, second = new_batch(), new_batch()
    attempts = []

    def freeze() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            db.client.admin.command("killAllSessions", [])
            assert commit(db, second) is None

    assert commit(db, frozen, during=freeze) == response_of(second)
    assert len(attempts) == 1
    assert accepted(db) == [second.id]


def test_a_frozen_request_without_a_successor_is_committed_in_a_new_transaction(db: Db) -> None:
    batch = new_batch()
    attempts = []

    def freeze() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            db.client.admin.command("killAllSessions", [])

    assert commit(db, batch, during=freeze) is None
    assert len(attempts) == 2
    assert accepted(db) == [batch.id]
    assert commit(db, new_batch()) == response_of(batch)


def test_a_refused_request_releases_its_key_for_any_other(db: Db) -> None:
    def fail() -> None:
        raise StoreAway("The disk failed.")

    with pytest.raises(StoreAway):
        commit(db, new_batch(), during=fail)
    assert db.idempotency.count_documents({}) == 0
    batch = new_batch()
    assert commit(db, batch, _OTHER) is None
    assert accepted(db) == [batch.id]


def test_the_record_of_an_earlier_version_is_respected_until_it_expires(db: Db) -> None:
    fields = {"fingerprint": _KEY.fingerprint, "token": "t", "state": "in_flight"}
    db.idempotency.insert_one({"_id": _KEY.key, **fields, "expires_at": utc_now() + timedelta(seconds=60)})
    with pytest.raises(InFlight):
        commit(db, new_batch())
    with pytest.raises(IdempotencyMismatch):
        commit(db, new_batch(), _OTHER)
    assert accepted(db) == []
    validate_documents(db)
    expire(db)
    batch = new_batch()
    assert commit(db, batch) is None
    assert commit(db, new_batch()) == response_of(batch)
    validate_documents(db)


def test_the_key_of_a_deleted_batch_is_gone(db: Db) -> None:
    batch = new_batch()
    commit(db, batch)
    deletion.begin_delete(db, batch.id, None)
    with pytest.raises(Gone):
        commit(db, new_batch())


def test_after_a_day_the_key_may_be_used_again(db: Db) -> None:
    first, second = new_batch(), new_batch()
    commit(db, first)
    expire(db)
    assert commit(db, second, _OTHER) is None
    assert sorted(accepted(db)) == sorted([first.id, second.id])
    assert idempotency.read_response(db, _OTHER) == response_of(second)


def test_a_request_that_took_too_long_frees_its_key_at_once(db: Db, mongo: settings.Mongo) -> None:
    """The time of the commit is over when the transaction is rolled back.

    The next request is served by another process, because a new transaction of the same session would end the old one.
    """

    def outlast(remaining_s: float) -> None:
        time.sleep(remaining_s + 0.1)
        raise StoreAway("the disk is slow")

    with pytest.raises(StoreAway, match="slow"):
        commits.commit_batch(
            db, new_batch(2), request_key=_KEY, response_body={}, wait_for_spool=outlast, deadline_s=0.5
        )
    batch = new_batch(2)
    other = connect(mongo, app="test")
    with other.client:
        assert commit(other, batch) is None
    assert accepted(db) == [batch.id]
