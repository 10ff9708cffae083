"""The security log in MongoDB: single events at once, counts of all processes in one document, and nothing lost while MongoDB is away."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared import settings
from shared.accounts import audit_log
from shared.accounts.audit_events import Event, EventType, new_event_id
from shared.accounts.audit_log import AuditLog, EventFilters
from shared.accounts.permissions import OPERATOR
from shared.errors import TooSlow
from shared.storage import schema
from shared.storage.mongo import Db, Document, connect
from tests.support.security_log import SecurityLog, record_security_log
from tests.support.service_stack import wait_until

NOON = datetime(2036, 1, 1, 12)  # MongoDB deletes events that are older than 180 days
DAY_S = 24 * 3600


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Return a list whose last element is the time by the clock of the security log."""
    times = [NOON]
    monkeypatch.setattr(audit_log, "utc_now", lambda: times[-1])
    return times


@pytest.fixture
def log(db: Db) -> Iterator[AuditLog]:
    log = AuditLog(db, write_deadline_s=60)
    yield log
    log.close()


@pytest.fixture
def lines() -> Iterator[SecurityLog]:
    with record_security_log() as recorded:
        yield recorded


def unreachable(url: str = "mongodb://127.0.0.1:1/?replicaSet=rs") -> Db:
    return connect(settings.Mongo(url=url, server_selection_timeout_s=0.05), app="test")


def stored(db: Db) -> list[Document]:
    return list(db.audit_events.find().sort("_id", -1))


def refusal(address: str = "192.0.2.1", **members: Any) -> Event:
    return Event("request.refused", address=address, details={"code": "unauthorized"}, **members)


def test_an_event_is_stored_and_logged_before_the_call_returns(db: Db, log: AuditLog, lines: SecurityLog) -> None:
    details = {"old_role": "viewer", "new_role": "admin", "old_stores": ["north"], "new_stores": ["*"]}
    log.record(Event("user.changed", "user:1", "user:1", "ada", "k1", "192.0.2.1", "r-1", "user:2", details))
    (document,) = stored(db)
    schema.AuditEvent._from_son(document).validate()
    members = {
        "actor": "user:1", "account": "user:1", "username": "ada", "key_id": "k1", "address": "192.0.2.1",
        "request_id": "r-1", "target": "user:2", "details": details,
    }  # fmt: skip
    assert document.items() >= (members | {"type": "user.changed", "count": 1, "clients": ["192.0.2.1"]}).items()
    (line,) = lines.lines()
    assert line.items() >= (members | {"message": "user.changed", "level": "info"}).items()


def test_an_operator_acts_without_an_address(db: Db, log: AuditLog) -> None:
    log.record(Event("user.created", actor=OPERATOR, target="user:1"))
    (document,) = stored(db)
    assert document.keys() == {"_id", "type", "at", "last_at", "count", "actor", "target"}


def test_events_are_kept_for_180_days(db: Db) -> None:
    assert [index["expireAfterSeconds"] for index in db.audit_events.list_indexes() if "expireAfterSeconds" in index] == [180 * DAY_S]


def test_ten_thousand_refusals_of_a_hundred_addresses_are_a_hundred_documents(db: Db, log: AuditLog, now: list[datetime], lines: SecurityLog) -> None:
    for number in range(10_000):
        if number % 2500 == 0:
            log.flush()
            now.append(NOON + timedelta(seconds=number // 500))
        log.count(refusal(f"192.0.2.{number % 100}"))
    log.flush()
    documents = stored(db)
    assert len(documents) == 100
    assert {document["count"] for document in documents} == {100}
    assert {(document["at"], document["last_at"]) for document in documents} == {(NOON, NOON + timedelta(seconds=15))}
    for document in documents:
        schema.AuditEvent._from_son(document).validate()
    assert sum(line["count"] for line in lines.lines()) == 10_000
    assert len(lines.lines()) <= 500


def test_all_processes_count_in_one_document(db: Db, now: list[datetime]) -> None:
    logs = [AuditLog(db, write_deadline_s=60) for _ in range(4)]

    def use(log: AuditLog) -> None:
        for number in range(10):
            log.count(Event("api_key.used", "key:1", "key:1", None, "k1", f"192.0.2.{number}"), times=2)
            log.flush()

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(use, logs))
    now.append(NOON + timedelta(hours=11))
    logs[0].count(Event("api_key.used", "key:1", "key:1", None, "k1", "198.51.100.1"))
    for log in logs:
        log.close()
    (document,) = stored(db)
    assert (document["count"], document["at"], document["last_at"]) == (81, NOON, now[-1])
    assert (document["address"], document["last_address"]) == ("192.0.2.0", "198.51.100.1")
    assert document["clients"] == [f"192.0.2.{number}" for number in range(8)]
    now.append(NOON + timedelta(days=1))
    with_next_day = AuditLog(db, write_deadline_s=60)
    with_next_day.count(Event("api_key.used", "key:1", key_id="k1"))
    with_next_day.close()
    assert [document["count"] for document in stored(db)] == [1, 81]


def test_a_thread_stores_counts_soon_and_close_stores_the_rest(db: Db, log: AuditLog, now: list[datetime]) -> None:
    log.count(refusal())
    wait_until(lambda: stored(db), 60, "the count is stored")
    log.count(refusal())
    log.close()
    assert [document["count"] for document in stored(db)] == [2]
    assert log._thread is not None
    assert not log._thread.is_alive()


def test_the_event_of_a_type_that_is_counted_is_never_a_document_of_its_own(db: Db, log: AuditLog, now: list[datetime]) -> None:
    for _ in range(15):
        log.record(Event("sign_in.failed", username="ada", address="192.0.2.1"))
    log.flush()
    assert [(document["count"], document["username"]) for document in stored(db)] == [(15, "ada")]


def test_while_mongodb_is_away_events_are_in_the_log_and_counts_are_stored_later(db: Db, now: list[datetime], lines: SecurityLog) -> None:
    log = AuditLog(unreachable(), write_deadline_s=0.1)
    for _ in range(2):
        log.record(Event("user.signed_in", "user:1", "user:1", "ada"))
        log.count(refusal())
        log.flush()
    assert [line["message"] for line in lines.lines()] == 2 * ["user.signed_in", "request.refused"]
    errors = [line["message"] for line in lines.lines("shelfsight.error") if "security event" in line["message"]]
    assert errors == [
        "A security event cannot be stored in MongoDB, so it is only in the log: database_unavailable.",
        "Counts of security events cannot be stored in MongoDB: database_unavailable.",
    ]
    log._db.client.close()
    log._db = db
    log._write_deadline_s = 60
    log.close()
    assert [(document["type"], document["count"]) for document in stored(db)] == [("request.refused", 2)]
    assert len(lines.lines()) == 4


def test_the_memory_for_counts_is_bounded_while_mongodb_is_away(db: Db, now: list[datetime], monkeypatch: pytest.MonkeyPatch, lines: SecurityLog) -> None:
    monkeypatch.setattr(audit_log, "_MAX_UNSTORED", 10)
    log = AuditLog(unreachable(), write_deadline_s=0.01)
    for number in range(30):
        log._counts.add(refusal(f"192.0.2.{number}"), NOON)
    log.flush()
    assert len(log._unstored) == 10
    assert any("the oldest are only in the log" in line["message"] for line in lines.lines("shelfsight.error"))
    log._db.client.close()
    log._db = db
    log._write_deadline_s = 60
    log.close()
    assert {document["address"] for document in stored(db)} == {f"192.0.2.{number}" for number in range(20, 30)}


def test_counts_that_mongodb_has_stored_are_not_stored_again_when_it_refuses_another(db: Db, log: AuditLog, now: list[datetime]) -> None:
    db.command("collMod", "audit_events", validator={"address": {"$ne": "192.0.2.1"}})
    for number in range(3):
        log.count(refusal(f"192.0.2.{number}"))
    for _ in range(3):
        log.flush()
    assert {document["address"]: document["count"] for document in stored(db)} == {"192.0.2.0": 1, "192.0.2.2": 1}
    db.command("collMod", "audit_events", validator={})
    log.flush()
    assert {document["address"]: document["count"] for document in stored(db)} == {f"192.0.2.{number}": 1 for number in range(3)}


def test_all_conditions_hold_for_the_events_of_a_list(log: AuditLog, now: list[datetime]) -> None:
    types: tuple[EventType, ...] = ("user.signed_in", "user.changed")
    for number in range(24):
        now.append(NOON + timedelta(hours=number))
        name = "ada" if number % 3 else "bob"
        log.record(Event(types[number % 2], username=name, key_id=f"k{number % 4}", address=f"192.0.2.{number % 6}", target="user:1" if number % 4 else None))

    def found(**conditions: Any) -> list[int]:
        events = log.find(EventFilters(**conditions), after=None, limit=100)
        return [(event["at"] - NOON) // timedelta(hours=1) for event in events]

    numbers = list(range(23, -1, -1))
    assert found() == numbers
    assert found(type="user.changed") == [number for number in numbers if number % 2]
    assert found(username="ada", key_id="k1") == [number for number in numbers if number % 3 and number % 4 == 1]
    assert found(address="192.0.2.5", target="user:1") == [number for number in numbers if number % 6 == 5 and number % 4]
    assert found(since=NOON + timedelta(hours=3), until=NOON + timedelta(hours=6)) == [6, 5, 4, 3]
    assert found(type="user.signed_in", username="bob", since=NOON + timedelta(hours=7)) == [18, 12]
    assert found(until=NOON - timedelta(milliseconds=1)) == found(since=now[-1] + timedelta(milliseconds=1)) == []
    assert found(since=datetime(1, 1, 1), until=datetime(9999, 12, 31)) == numbers


def test_a_counted_event_is_found_between_its_first_and_its_last_time(log: AuditLog, now: list[datetime]) -> None:
    for hour in (2, 9):
        now.append(NOON.replace(hour=hour))
        log.count(Event("api_key.used", "key:1", key_id="k1", address="192.0.2.1"))
    log.flush()

    def is_found(since: int, until: int, **conditions: Any) -> bool:
        return bool(log.find(EventFilters(since=NOON.replace(hour=since), until=NOON.replace(hour=until), **conditions), after=None, limit=10))

    assert [is_found(*hours) for hours in ((0, 1), (0, 2), (3, 4), (9, 12), (10, 12))] == [False, True, True, True, False]
    assert is_found(3, 4, type="api_key.used")
    assert not is_found(3, 4, type="user.changed")


def test_every_filter_has_an_index_that_also_sorts(db: Db, log: AuditLog) -> None:
    for number in range(20):
        log.record(Event("user.changed" if number == 7 else "user.signed_in", username=f"u{number}", key_id=f"k{number}", address=f"192.0.2.{number}", target=f"user:{number}"))

    def stages(plan: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
        yield plan["stage"], plan.get("indexName")
        for child in (plan.get("inputStage"), plan.get("queryPlan")):
            if child:
                yield from stages(child)

    values: dict[str, Any] = {"type": "user.changed", "username": "u7", "key_id": "k7", "address": "192.0.2.7", "target": "user:7"}
    for name, value in values.items():
        filters = EventFilters(since=datetime(2026, 1, 1), **{name: value})
        plan = db.audit_events.find(filters.query(new_event_id(NOON + timedelta(days=9999)))).sort("_id", -1).limit(21).explain()["queryPlanner"]["winningPlan"]
        used = dict(stages(plan))
        index = {"address": "clients"}.get(name, name)
        assert used.get("IXSCAN") == f"{index}_1__id_-1", used
        assert not used.keys() & {"SORT", "COLLSCAN"}


def test_a_list_that_takes_too_long_is_given_up(db: Db, log: AuditLog) -> None:
    db.audit_events.insert_many(
        {"_id": new_event_id(NOON), "type": "api_key.used", "at": NOON, "last_at": NOON, "count": 1} for _ in range(20_000)
    )
    with pytest.raises(TooSlow):
        log.find(EventFilters(since=NOON + timedelta(hours=1)), after=None, limit=10, deadline_s=0.001)
