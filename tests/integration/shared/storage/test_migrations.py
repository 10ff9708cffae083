"""Migrations on a real MongoDB: they run once, one process at a time, and continue after a kill."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import IndexModel

from scripts.local.installation import ROOT
from shared import settings
from shared.storage import schema
from shared.storage.indexes import IndexConflict, create_indexes, find_missing_indexes
from shared.storage.migrations import runner, update_end
from shared.storage.migrations.errors import Failed, Inconsistent, Locked, LockLost
from shared.storage.migrations.lock import MigrationLock, find_holder
from shared.storage.migrations.registry import Migration, find_migrations
from shared.storage.migrations.run import Progress, Run
from shared.storage.migrations.runner import Finished
from shared.storage.mongo import Db, connect

_KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from shared import failpoints, settings
from shared.storage.migrations import runner
from shared.storage.mongo import connect

reached = []
def kill(name):
    reached.append(name)
    if len(reached) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

failpoints.install(kill)
runner.migrate(connect(settings.Mongo(), app="test"))
"""


@pytest.fixture
def empty(mongo: settings.Mongo) -> Iterator[Db]:
    """Return a database without collections. It is dropped after the test."""
    database = connect(mongo, app="test")
    yield database
    database.client.drop_database(database.name)
    database.client.close()


def known(*apply: Callable[[Run], None]) -> list[Migration]:
    """Return migrations with these functions."""
    return [Migration(number, f"m{number:04}_test", "a test", function) for number, function in enumerate(apply, 1)]


def insert_old_images(db: Db, count: int) -> None:
    """Insert images without the fields that the first migration adds."""
    db.images.insert_many([{"_id": f"{number:06}", "status": "done", "fence": number} for number in range(count)])


def expire_lock(db: Db) -> None:
    """Let the lease of the migrations expire, as if its holder had not renewed it for long enough."""
    db.leases.update_one({"_id": "migrations"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])


def test_a_new_database_gets_all_indexes_and_all_migrations(empty: Db) -> None:
    assert not runner.read_status(empty).up_to_date
    assert runner.migrate(empty) == [migration.name for migration in find_migrations()]
    status = runner.read_status(empty)
    assert status.up_to_date
    assert {record.state for record in status.migrations} == {"done"}
    assert all(record.started_at and record.finished_at for record in status.migrations)
    assert find_missing_indexes(empty) == []
    assert status.holder is None
    assert (status.update_finished, status.superseded_indexes) == (True, {})
    assert runner.finish_update(empty) == Finished(0, ())


def test_a_database_that_is_up_to_date_is_only_read(empty: Db) -> None:
    runner.migrate(empty)
    records = list(empty.migrations.find())
    lock = MigrationLock(empty)
    assert lock.acquire() is None  # a run that had something to do would wait for the lock
    assert runner.migrate(empty, wait_s=0) == []
    assert list(empty.migrations.find()) == records


def test_the_first_migration_adds_two_null_fields_and_changes_nothing_else(empty: Db) -> None:
    insert_old_images(empty, 2500)
    empty.batches.insert_one({"_id": "a", "status": "done"})
    empty.images.insert_one({"_id": "z", "account": "x", "created_by": "y"})
    runner.migrate(empty)
    assert empty.images.count_documents({"account": None, "created_by": None}) == 2500
    assert empty.images.count_documents({"account": {"$exists": True}}) == 2501
    assert empty.images.find_one({"_id": "z"}) == {"_id": "z", "account": "x", "created_by": "y"}
    assert empty.images.find_one({"_id": "000007"}) == {"_id": "000007", "status": "done", "fence": 7, "account": None, "created_by": None}
    assert empty.batches.find_one() == {"_id": "a", "status": "done", "account": None, "created_by": None}


def test_the_second_migration_sets_the_highest_score_of_images_with_detections_and_leaves_all_others(empty: Db) -> None:
    found: dict[str, Any] = {"detections": [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.75}, {"label": "a", "score": 0.625}]}
    images: list[dict[str, Any]] = [
        {"_id": "a", "status": "done"} | found,
        {"_id": "b", "status": "done", "detections": []},
        {"_id": "c", "status": "failed"},
        {"_id": "d", "status": "done", "top_score": 0.875} | found,
    ]
    empty.images.insert_many(images + [{"_id": f"e{number:04}", "status": "done"} | found for number in range(1500)])
    for _ in range(2):
        runner.migrate(empty)
        scores = {image["_id"]: image.get("top_score") for image in empty.images.find({"_id": {"$lt": "e"}})}
        assert scores == {"a": 0.75, "b": None, "c": None, "d": 0.875}
        assert empty.images.count_documents({"_id": {"$gt": "e"}, "top_score": 0.75}) == 1500
        assert empty.images.count_documents({"top_score": {"$exists": True}}) == 1502
        empty.migrations.delete_many({"_id": {"$gte": 2}})  # a second run changes nothing


@pytest.mark.slow
def test_a_run_that_was_killed_is_continued_where_it_was(empty: Db, mongo: settings.Mongo) -> None:
    insert_old_images(empty, 5500)
    environment = {"PYTHONPATH": str(ROOT), "MONGODB_URL": mongo.url, "MONGODB_DATABASE": mongo.database}
    killed = subprocess.run([sys.executable, "-c", _KILLED_IN_THE_MIDDLE], env=environment, timeout=120, check=False)
    assert killed.returncode == -9
    record = runner.read_status(empty).migrations[0]
    assert (record.state, record.progress) == ("running", (Progress("batches"), Progress("images", 2000, 5500)))
    assert empty.images.count_documents({"account": {"$exists": True}}) == 3000
    assert runner.read_status(empty).holder is not None
    with pytest.raises(Locked, match="is still held by process"):
        runner.migrate(empty, wait_s=0)

    expire_lock(empty)
    shown: list[Progress] = []
    runner.migrate(empty, shown.append)
    amounts = [progress.done for progress in shown if progress.total and progress.step.startswith("m0001")]
    assert amounts == [3000, 4000, 5000, 5500]
    assert empty.images.count_documents({"account": {"$exists": True}}) == 5500
    assert runner.read_status(empty).up_to_date


def test_of_two_runs_at_once_one_waits_and_nothing_is_run_twice(empty: Db) -> None:
    began, continued, runs = threading.Event(), threading.Event(), []

    def slow(run: Run) -> None:
        runs.append(run)
        began.set()
        assert continued.wait(60)

    results: dict[str, list[str]] = {}
    first = threading.Thread(target=lambda: results.update(first=runner.migrate(empty, known=known(slow))))
    first.start()
    assert began.wait(60)
    shown: list[Progress] = []

    def show(progress: Progress) -> None:
        shown.append(progress)
        continued.set()

    results["second"] = runner.migrate(empty, show, known=known(slow))
    first.join(60)
    assert results == {"first": ["m0001_test"], "second": []}
    assert len(runs) == 1
    assert shown[0].step.startswith("waiting for process ")


def test_a_process_that_lost_the_lock_cannot_record_anything(empty: Db) -> None:
    insert_old_images(empty, 1)

    def overtaken(run: Run) -> None:
        for _ in run.id_ranges("images"):
            empty.migrations.update_one({"_id": 1}, {"$set": {"owner": "another"}})

    with pytest.raises(LockLost):
        runner.migrate(empty, known=known(overtaken))
    (record,) = empty.migrations.find()
    assert (record["state"], record["owner"], record["progress"]["images"]["after"]) == ("running", "another", None)


def test_a_process_that_lost_the_lock_before_its_first_write_does_not_run_a_migration_again(empty: Db) -> None:
    def nothing(_: Run) -> None:
        pass

    runner.migrate(empty, known=known(nothing))
    late = Run(empty, MigrationLock(empty), 1, "m0001_test", lambda _: None)
    with pytest.raises(LockLost):
        late.start()
    (record,) = runner.read_status(empty, known(nothing)).migrations
    assert record.state == "done"


def test_the_lease_is_renewed_while_migrations_are_running(empty: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    insert_old_images(empty, 1)
    lock = MigrationLock(empty)
    assert lock.acquire() is None
    expire_lock(empty)
    assert find_holder(empty) is None
    lock.keep()
    assert find_holder(empty) is None  # too early
    later = time.monotonic() + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    lock.keep()
    assert find_holder(empty) is not None
    lock.release()
    assert empty.leases.find_one({"_id": "migrations"}) is None


def test_the_holder_of_the_lock_notices_that_another_process_has_taken_it_over(empty: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = MigrationLock(empty), MigrationLock(empty)
    assert first.acquire() is None
    assert second.acquire() is not None
    expire_lock(empty)
    assert second.acquire() is None
    monkeypatch.setattr("shared.storage.migrations.lock.LEASE_S", 0.0)
    with pytest.raises(LockLost):
        first.keep()
    first.release()  # must not release the lock of the other process
    assert find_holder(empty) is not None


def test_documents_inserted_during_a_migration_do_not_prolong_it(empty: Db) -> None:
    insert_old_images(empty, 1)

    def insert_more(run: Run) -> None:
        for number, _ in enumerate(run.id_ranges("images")):
            empty.images.insert_one({"_id": f"z{number}"})
            assert number == 0

    runner.migrate(empty, known=known(insert_more))


def test_a_failed_migration_is_recorded_and_can_be_run_again(empty: Db) -> None:
    failures: list[Exception] = [ValueError("a secret")]

    def fail_once(_: Run) -> None:
        if failures:
            raise failures.pop()

    with pytest.raises(Failed, match="m0001_test failed: ValueError"):
        runner.migrate(empty, known=known(fail_once))
    (record,) = runner.read_status(empty, known(fail_once)).migrations
    assert (record.state, record.error, record.finished_at) == ("failed", "ValueError", None)
    assert runner.migrate(empty, known=known(fail_once)) == ["m0001_test"]
    (record,) = runner.read_status(empty, known(fail_once)).migrations
    assert (record.state, record.error) == ("done", None)


def test_old_code_works_with_a_newer_database(empty: Db) -> None:
    def nothing(_: Run) -> None:
        pass

    runner.migrate(empty, known=known(nothing, nothing))
    status = runner.read_status(empty, known(nothing))
    assert (status.up_to_date, status.newer) == (True, ("m0002_test",))
    assert runner.migrate(empty, known=known(nothing)) == []


def test_a_database_of_other_code_is_refused(empty: Db) -> None:
    def nothing(_: Run) -> None:
        pass

    runner.migrate(empty, known=known(nothing))
    empty.migrations.update_one({}, {"$set": {"name": "m0001_other"}})
    with pytest.raises(Inconsistent, match="m0001_other"):
        runner.migrate(empty, known=known(nothing))


def test_a_dropped_index_is_missing_until_the_next_run(empty: Db) -> None:
    runner.migrate(empty)
    empty.images.drop_index("claimable_by_turn")
    status = runner.read_status(empty)
    assert (status.up_to_date, status.missing_indexes, status.pending) == (False, ("images.claimable_by_turn",), ())
    assert runner.migrate(empty) == []
    assert runner.read_status(empty).up_to_date


@pytest.mark.parametrize(
    "existing",
    [
        {"keys": [("work.lease_until", -1)], "name": "leases"},
        {"keys": [("work.lease_until", 1)], "name": "leases"},  # without the partial filter
        {"keys": [("work.lease_until", 1)], "name": "other", "partialFilterExpression": {"status": "processing"}},
    ],
    ids=["keys", "options", "name"],
)
def test_an_index_that_was_changed_without_a_new_name_is_an_error_that_names_it(empty: Db, existing: dict[str, Any]) -> None:
    empty.images.create_index(existing.pop("keys"), **existing)
    with pytest.raises(IndexConflict, match=r"leases.*images"):
        create_indexes(empty)
    assert "images.leases" in runner.read_status(empty).missing_indexes


def test_an_index_build_keeps_the_lock_and_reports_its_progress(empty: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.storage.indexes._WAIT_S", 0.0)
    insert_old_images(empty, 20_000)
    kept: list[str] = []
    keep = MigrationLock.keep
    step = ""

    def show(progress: Progress) -> None:
        nonlocal step
        step = progress.step

    def record_keep(lock: MigrationLock) -> None:
        keep(lock)
        kept.append(step)

    monkeypatch.setattr(MigrationLock, "keep", record_keep)
    runner.migrate(empty, show)
    assert "building the indexes of images" in kept


def test_an_index_that_is_still_being_built_counts_as_missing(empty: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.images.insert_many([{"_id": f"{number:06}", "keys": list(range(number, 200 * number, number))} for number in range(1, 2001)])
    declared = IndexModel([("keys", 1)], name="declared")
    monkeypatch.setattr(schema.Image, "indexes", [declared])
    building = threading.Thread(target=lambda: empty.images.create_indexes([declared]))
    building.start()
    while "declared" not in empty.images.index_information():  # MongoDB lists the index before it is built
        assert building.is_alive()
    assert "images.declared" in [str(name) for name in find_missing_indexes(empty)]
    building.join(60)
    assert "images.declared" not in [str(name) for name in find_missing_indexes(empty)]


def test_nothing_is_known_about_the_update_of_a_database_without_migrations(empty: Db) -> None:
    create_indexes(empty)
    assert not update_end.is_update_finished(empty)
    runner.finish_update(empty)
    assert not update_end.is_update_finished(empty)
    runner.migrate(empty)
    assert update_end.is_update_finished(empty)


def test_whether_the_update_is_finished_is_one_document_and_the_names_of_indexes(empty: Db) -> None:
    runner.migrate(empty)
    empty.command("profile", 2)
    assert update_end.is_update_finished(empty)
    empty.command("profile", 0)
    document, indexes = empty["system.profile"].find({"command.profile": {"$exists": False}}).sort("ts", 1)
    assert (document["op"], document["ns"], document["docsExamined"], document["planSummary"]) == ("query", f"{empty.name}.migrations", 1, "IDHACK")
    assert indexes["command"]["listIndexes"] == "images"


def test_the_end_of_an_update_waits_for_the_lock(empty: Db) -> None:
    runner.migrate(empty)
    update_end.record_begin(empty)
    lock = MigrationLock(empty)
    assert lock.acquire() is None
    with pytest.raises(Locked):
        runner.finish_update(empty, wait_s=0)
    lock.release()
    runner.finish_update(empty, wait_s=0)
    assert update_end.is_update_finished(empty)
