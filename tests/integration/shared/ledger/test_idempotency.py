"""Which request an ``Idempotency-Key`` belongs to, in all states of its record."""

import threading
from datetime import timedelta

import pytest

from shared.errors import Gone, IdempotencyMismatch, InFlight
from shared.ledger import commits, deletion, idempotency
from shared.ledger.idempotency import KeyReservation, StoredResponse
from shared.storage.mongo import Db
from tests.support.ledger import new_batch, utc_now, validate_documents


def reserve(db: Db, fingerprint: str = "print") -> KeyReservation:
    reservation = idempotency.reserve_key(db, "open:key", fingerprint)
    assert isinstance(reservation, KeyReservation)
    return reservation


def expire(db: Db) -> None:
    db.idempotency.update_one({"_id": "open:key"}, {"$set": {"expires_at": utc_now() - timedelta(seconds=1)}})


def test_a_repeated_request_gets_the_first_response(db: Db) -> None:
    batch = new_batch()
    body = {"batch_id": batch.id, "images": [{"extra": "$not a field path"}]}
    commits.commit_batch(db, batch, reservation=reserve(db), response_body=body)
    assert idempotency.reserve_key(db, "open:key", "print") == StoredResponse(body, batch.id)
    record = db.idempotency.find_one()
    assert record is not None
    assert timedelta(hours=23, minutes=59) < record["expires_at"] - utc_now() <= timedelta(hours=24)
    validate_documents(db)


def test_another_request_with_the_key_is_refused_during_and_after_the_first(db: Db) -> None:
    reservation = reserve(db)
    with pytest.raises(IdempotencyMismatch):
        idempotency.reserve_key(db, "open:key", "another")
    commits.commit_batch(db, new_batch(), reservation=reservation, response_body={})
    with pytest.raises(IdempotencyMismatch):
        idempotency.reserve_key(db, "open:key", "another")


def test_a_repeated_request_is_told_to_wait_while_the_first_is_in_progress(db: Db) -> None:
    reserve(db)
    with pytest.raises(InFlight) as raised:
        idempotency.reserve_key(db, "open:key", "print")
    assert raised.value.retry_after
    validate_documents(db)


def test_of_concurrent_requests_one_gets_the_key(db: Db) -> None:
    reservations: list[KeyReservation] = []
    refusals: list[InFlight] = []
    barrier = threading.Barrier(8)

    def request() -> None:
        barrier.wait()
        try:
            reservation = idempotency.reserve_key(db, "open:key", "print")
        except InFlight as error:
            refusals.append(error)
        else:
            assert isinstance(reservation, KeyReservation)
            reservations.append(reservation)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(reservations), len(refusals)) == (1, 7)


def test_after_a_minute_another_request_may_take_over_and_the_first_can_no_longer_commit(db: Db) -> None:
    frozen, first = reserve(db), new_batch()
    expire(db)
    successor, second = reserve(db), new_batch()
    assert successor.token != frozen.token
    commits.commit_batch(db, second, reservation=successor, response_body={"batch_id": second.id})
    with pytest.raises(InFlight):
        commits.commit_batch(db, first, reservation=frozen, response_body={"batch_id": first.id})
    assert [row["_id"] for row in db.batches.find()] == [second.id]
    assert [row["_id"] for row in db.ledger.find()] == [second.id]


def test_a_slow_first_request_may_still_commit_when_no_other_has_taken_over(db: Db) -> None:
    reservation, batch = reserve(db), new_batch()
    expire(db)
    commits.commit_batch(db, batch, reservation=reservation, response_body={"batch_id": batch.id})
    assert idempotency.reserve_key(db, "open:key", "print") == StoredResponse({"batch_id": batch.id}, batch.id)


def test_a_request_fails_when_mongodb_has_expired_its_record(db: Db) -> None:
    reservation = reserve(db)
    db.idempotency.delete_many({})
    with pytest.raises(InFlight):
        commits.commit_batch(db, new_batch(), reservation=reservation, response_body={})
    assert db.batches.count_documents({}) == 0


def test_a_refused_request_releases_its_key_for_any_other(db: Db) -> None:
    idempotency.release_key(db, reserve(db))
    assert reserve(db, "another")


def test_a_release_never_removes_a_stored_response_or_the_record_of_another_request(db: Db) -> None:
    reservation, batch = reserve(db), new_batch()
    idempotency.release_key(db, KeyReservation(reservation.key, "another token"))
    commits.commit_batch(db, batch, reservation=reservation, response_body={})
    idempotency.release_key(db, reservation)
    assert isinstance(idempotency.reserve_key(db, "open:key", "print"), StoredResponse)


def test_the_key_of_a_deleted_batch_is_gone(db: Db) -> None:
    batch = new_batch()
    commits.commit_batch(db, batch, reservation=reserve(db), response_body={})
    deletion.begin_delete(db, batch.id)
    with pytest.raises(Gone):
        idempotency.reserve_key(db, "open:key", "print")


def test_after_a_day_the_key_may_be_used_again(db: Db) -> None:
    commits.commit_batch(db, new_batch(), reservation=reserve(db), response_body={})
    expire(db)
    assert reserve(db, "another")
