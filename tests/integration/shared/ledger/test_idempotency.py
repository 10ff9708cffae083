"""Which request a key belongs to, in all its states."""

import threading
from datetime import timedelta

import pytest

from shared.errors import Gone, IdempotencyMismatch, InFlight
from shared.ledger import commits, deletion, idempotency
from shared.ledger.idempotency import Begun, Replay
from shared.storage.mongo import Db
from tests.support.ledger import new_batch, utc_now, validate_documents


def begin(db: Db, fingerprint: str = "print") -> Begun:
    begun = idempotency.begin(db, "open:key", fingerprint)
    assert isinstance(begun, Begun)
    return begun


def expire(db: Db) -> None:
    db.idempotency.update_one({"_id": "open:key"}, {"$set": {"expires_at": utc_now() - timedelta(seconds=1)}})


def test_the_same_request_gets_the_first_answer_again(db: Db) -> None:
    made = new_batch()
    answer = {"batch_id": made.id, "images": [{"extra": "$not a field path"}]}
    commits.commit_batch(db, made, idempotency=begin(db), answer=answer)
    assert idempotency.begin(db, "open:key", "print") == Replay(answer, made.id)
    record = db.idempotency.find_one()
    assert record is not None
    assert timedelta(hours=23, minutes=59) < record["expires_at"] - utc_now() <= timedelta(hours=24)
    validate_documents(db)


def test_another_request_with_the_key_is_refused_in_flight_and_later(db: Db) -> None:
    begun = begin(db)
    with pytest.raises(IdempotencyMismatch):
        idempotency.begin(db, "open:key", "another")
    commits.commit_batch(db, new_batch(), idempotency=begun, answer={})
    with pytest.raises(IdempotencyMismatch):
        idempotency.begin(db, "open:key", "another")


def test_a_second_request_in_flight_is_told_to_wait(db: Db) -> None:
    begin(db)
    with pytest.raises(InFlight) as said:
        idempotency.begin(db, "open:key", "print")
    assert said.value.retry_after
    validate_documents(db)


def test_of_two_requests_at_once_one_gets_the_key(db: Db) -> None:
    won: list[Begun] = []
    lost: list[InFlight] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        try:
            taken = idempotency.begin(db, "open:key", "print")
        except InFlight as error:
            lost.append(error)
        else:
            assert isinstance(taken, Begun)
            won.append(taken)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert (len(won), len(lost)) == (1, 7)


def test_after_a_minute_anyone_may_take_over_and_the_first_can_no_longer_commit(db: Db) -> None:
    frozen, first = begin(db), new_batch()
    expire(db)
    heir, second = begin(db), new_batch()
    assert heir.token != frozen.token
    commits.commit_batch(db, second, idempotency=heir, answer={"batch_id": second.id})
    with pytest.raises(InFlight):
        commits.commit_batch(db, first, idempotency=frozen, answer={"batch_id": first.id})
    assert [row["_id"] for row in db.batches.find()] == [second.id]
    assert [row["_id"] for row in db.ledger.find()] == [second.id]


def test_a_slow_first_request_may_still_commit_when_nobody_took_over(db: Db) -> None:
    begun, made = begin(db), new_batch()
    expire(db)
    commits.commit_batch(db, made, idempotency=begun, answer={"batch_id": made.id})
    assert idempotency.begin(db, "open:key", "print") == Replay({"batch_id": made.id}, made.id)


def test_a_record_that_mongodb_has_expired_ends_the_request(db: Db) -> None:
    begun = begin(db)
    db.idempotency.delete_many({})
    with pytest.raises(InFlight):
        commits.commit_batch(db, new_batch(), idempotency=begun, answer={})
    assert db.batches.count_documents({}) == 0


def test_a_refused_request_frees_its_key_for_any_other(db: Db) -> None:
    idempotency.forget(db, begin(db))
    assert begin(db, "another")


def test_forgetting_never_removes_an_answer_or_somebody_elses_record(db: Db) -> None:
    begun, made = begin(db), new_batch()
    idempotency.forget(db, Begun(begun.key, "not mine"))
    commits.commit_batch(db, made, idempotency=begun, answer={})
    idempotency.forget(db, begun)
    assert isinstance(idempotency.begin(db, "open:key", "print"), Replay)


def test_a_deleted_batch_is_gone(db: Db) -> None:
    made = new_batch()
    commits.commit_batch(db, made, idempotency=begin(db), answer={})
    deletion.begin_delete(db, made.id)
    with pytest.raises(Gone):
        idempotency.begin(db, "open:key", "print")


def test_after_a_day_the_key_is_free(db: Db) -> None:
    commits.commit_batch(db, new_batch(), idempotency=begin(db), answer={})
    expire(db)
    assert begin(db, "another")
