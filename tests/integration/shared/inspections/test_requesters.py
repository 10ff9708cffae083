"""Which accounts may read an inspection or a result, and for how long."""

import pytest

from shared import settings
from shared.errors import StoreAway
from shared.inspections import requesters
from shared.inspections.requesters import Requesters
from shared.storage.mongo import Db, connect
from tests.support.ledger import validate_documents

pytestmark = pytest.mark.slow
JOB, OTHER = "1" * 32, "2" * 32


def expire(db: Db) -> None:
    db.inspection_requesters.update_many({}, [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}])


def test_an_account_may_read_what_it_requested_in_every_process(db: Db) -> None:
    first, second = Requesters(db), Requesters(db)
    first.add("user:1", JOB)
    for process in (first, second):
        assert process.includes("user:1", JOB)
        assert not process.includes("user:1", OTHER)
        assert not process.includes("user:2", JOB)
    validate_documents(db)


def test_the_permission_ends_a_day_after_the_last_request(db: Db) -> None:
    Requesters(db).add("user:1", JOB)
    (row,) = db.inspection_requesters.aggregate([{"$project": {"left_ms": {"$subtract": ["$expires_at", "$$NOW"]}}}])
    assert 86_000_000 < row["left_ms"] <= 86_400_000
    expire(db)
    assert not Requesters(db).includes("user:1", JOB)
    Requesters(db).add("user:1", JOB)
    assert Requesters(db).includes("user:1", JOB)
    assert db.inspection_requesters.count_documents({}) == 1
    assert "expireAfterSeconds" in db.inspection_requesters.index_information()["expires_at_1"]


def test_one_process_writes_the_same_once_in_ten_minutes(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_written_again(process: Requesters) -> bool:
        process.add("user:1", JOB)
        db.inspection_requesters.delete_many({})
        process.add("user:1", JOB)
        return db.inspection_requesters.count_documents({}) == 1

    assert not is_written_again(Requesters(db))
    monkeypatch.setattr(requesters, "_RECORD_EVERY_S", 0.0)
    assert is_written_again(Requesters(db))


def test_a_process_remembers_a_limited_number(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requesters, "_MAX_RECENT", 3)
    process = Requesters(db)
    for number in range(5):
        process.add("user:1", str(number) * 32)
    assert len(process._recent) == 3
    assert process.includes("user:1", "0" * 32)


def test_without_mongodb_nobody_is_refused_as_unknown(mongo: settings.Mongo) -> None:
    away = connect(mongo.model_copy(update={"url": "mongodb://127.0.0.1:1/", "server_selection_timeout_s": 0.2}), app="test")
    for call in (Requesters(away).add, Requesters(away).includes):
        with pytest.raises(StoreAway):
            call("user:1", JOB)
    away.client.close()
