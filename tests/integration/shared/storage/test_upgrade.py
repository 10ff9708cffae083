"""Data that the release before wrote is upgraded while old and new code write to the same database.

``tests/fixtures/README.md`` says how the data was made.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, Self

import pytest
from bson import json_util
from pymongo.client_session import ClientSession

from shared import failpoints, settings
from shared.catalog.image_lists import page_of_images
from shared.errors import Conflict
from shared.ids import batch_of, image_id, new_batch_id
from shared.inspections import jobs
from shared.ledger import (
    audit,
    cancellation,
    claims,
    closing,
    deletion,
    idempotency,
    page_index,
    queries,
    reprocessing,
    results,
    segments,
    sums,
    turns,
)
from shared.ledger.filters import Filters
from shared.ledger.reprocessing import Options
from shared.storage.indexes import create_indexes
from shared.storage.migrations import late_results, late_shown, runner, update_end
from shared.storage.migrations.run import Progress
from shared.storage.mongo import Db, connect
from shared.storage.schema import DOCUMENTS
from shared.storage.schema.superseded import SUPERSEDED, SUPERSEDED_COLLECTIONS
from tests.support.ledger import (
    batch_id_at,
    commit_new_batch,
    failed_results,
    process_all,
    successful_results,
    utc_now,
    validate_documents,
)
from tests.support.paths import ROOT

_RELEASE: Final[dict[str, Any]] = json_util.loads(
    (ROOT / "tests/fixtures/release_b91e182.json").read_text(), json_options=json_util.JSONOptions(tz_aware=False)
)
_COPIES: Final = 600
"""Copies of the batch of four done images, so that the migration takes several steps."""
_NEW_FIELDS: Final = {"account": None, "created_by": None}


@pytest.fixture
def old(mongo: settings.Mongo) -> Iterator[Db]:
    """Return a database as the release before left it. It is dropped after the test."""
    db = connect(mongo, app="test")
    for name, held in _RELEASE.items():
        db.create_collection(name)
        indexes = [{key: value for key, value in index.items() if key != "v"} for index in held["indexes"]]
        db.command("createIndexes", name, indexes=indexes)
        if held["documents"]:
            db[name].insert_many(held["documents"])
    # An index of the versions between that of the fixture and this one.
    db.batches.create_index([("open", 1), ("created_at", 1), ("bytes", 1)], name="backlog", partialFilterExpression={"open": True})
    yield db
    db.client.drop_database(db.name)
    db.client.close()


def _insert_copies(db: Db, newest: datetime) -> None:
    """Insert copies of a batch as batches that were accepted in each second up to ``newest``."""
    batch = db.batches.find_one({"status": "done", "listed": True})
    assert batch is not None
    line = db.ledger.find_one({"_id": batch["_id"]})
    images = list(db.images.find({"batch_id": batch["_id"]}).sort("index", 1))
    assert line is not None
    copies: dict[str, list[dict[str, Any]]] = {"batches": [], "ledger": [], "images": []}
    for number in range(_COPIES):
        batch_id = batch_id_at(newest - timedelta(seconds=number), number)
        copies["batches"].append(batch | {"_id": batch_id})
        copies["ledger"].append(line | {"_id": batch_id})
        copies["images"] += [image | {"_id": image_id(batch_id, image["index"]), "batch_id": batch_id} for image in images]
    for name, documents in copies.items():
        db[name].insert_many(documents)


def _insert_as_old_code(db: Db) -> None:
    """Insert copies of a queued batch of the release before, whose documents have what that release wrote."""
    header = next(batch for batch in _RELEASE["batches"]["documents"] if batch["status"] == "queued")
    line = next(line for line in _RELEASE["ledger"]["documents"] if line["_id"] == header["_id"])
    images = [image for image in _RELEASE["images"]["documents"] if image["batch_id"] == header["_id"]]
    batch_id = new_batch_id()
    db.ledger.insert_one(line | {"_id": batch_id})
    db.batches.insert_one(header | {"_id": batch_id})
    db.images.insert_many([image | {"_id": image_id(batch_id, image["index"]), "batch_id": batch_id} for image in images])


def _delete_as_old_code(db: Db, batch_id: str) -> None:
    """Begin a deletion as the release before did, which knows neither groups of segments nor segments of the ledger."""

    def write(session: ClientSession) -> None:
        flags = {"deleting": True, "uncleared": True}
        change = {"$unset": {"listed": "", "open": ""}, "$set": flags, "$currentDate": {"deleting_at": True}}
        header = db.batches.find_one_and_update({"_id": batch_id, "listed": True}, change, {"stores": 1}, session=session)
        assert header is not None
        fenced = {"status": "deleting", "work.claim": None, "work.lease_until": None}
        count = db.images.update_many({"batch_id": batch_id}, {"$set": fenced, "$inc": {"work.fence": 1}}, session=session).matched_count
        db.ledger.update_one({"_id": batch_id}, {"$set": {"state": "deleted"}, "$inc": {"deleted": count}}, session=session)
        for scope in [page_index.ALL, *(page_index.scope_of(store) for store in header["stores"])]:
            segment = {"scope": scope, "newest": {"$gte": batch_id}, "after": {"$lt": batch_id}}
            db.ranks.update_one(segment, {"$inc": {"count": -1}}, session=session)

    with db.client.start_session() as session:
        session.with_transaction(write)


class Load:
    """Threads that call functions repeatedly, until the ``with`` block ends. An exception of a thread is raised then."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._repeat, args=(call,)) for call in calls]
        self.counts = dict.fromkeys(calls, 0)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self._errors:
            raise self._errors[0]

    def wait_for_calls(self, count: int) -> None:
        """Wait until each function has been called ``count`` more times."""
        wanted = {call: made + count for call, made in self.counts.items()}
        while any(self.counts[call] < number for call, number in wanted.items()):
            assert not self._errors
            time.sleep(0.001)

    def _repeat(self, call: Callable[[], object]) -> None:
        try:
            while not self._stop.is_set():
                call()
                self.counts[call] += 1
        except Exception as error:  # noqa: BLE001 -- raised in the test's thread
            self._errors.append(error)


def _terminal(db: Db) -> dict[str, dict[str, Any]]:
    """Return the batches and images that no process changes any more, by id."""
    batches = list(db.batches.find({"open": {"$exists": False}}))
    images = db.images.find({"batch_id": {"$in": [batch["_id"] for batch in batches]}})
    return {document["_id"]: document for document in [*batches, *images]}


def _top_score(document: dict[str, Any]) -> dict[str, float]:
    scores = [detection["score"] for detection in document.get("detections", [])]
    return {"top_score": max(scores)} if scores else {}


def test_the_fixture_contains_every_state() -> None:
    states = {name: {document.get("status") for document in _RELEASE[name]["documents"]} for name in ("batches", "images", "inspections")}
    assert states["images"] == {"queued", "processing", "done", "failed", "deleting"}
    assert states["batches"] == {"queued", "done", "partial", "failed"}
    assert states["inspections"] == {"queued", "processing", "done", "failed"}
    assert {line["state"] for line in _RELEASE["ledger"]["documents"]} == {"accepted", "deleted", "abandoned"}
    assert any("count" in segment for segment in _RELEASE["ranks"]["documents"])


@pytest.mark.slow
def test_data_of_the_release_before_is_upgraded_under_load(old: Db) -> None:
    _insert_copies(old, utc_now() - timedelta(days=1))
    before, old_ids = _terminal(old), [image["_id"] for image in old.images.find({}, {"_id": 1})]

    def insert_as_old_code() -> None:
        _insert_as_old_code(old)

    def upload_and_process() -> None:
        commit_new_batch(old, 2, "new")
        process_all(old, "worker")

    create_indexes(old)  # this version does not start without its indexes
    with Load(insert_as_old_code, upload_and_process) as load:
        load.wait_for_calls(2)
        # The ranges of a migration take turns with the load, so that both change the same database.
        assert runner.migrate(old, lambda _: load.wait_for_calls(1))[0] == "m0001_accounts"
    assert runner.read_status(old).up_to_date

    # Every document has the fields or lacks them because old code inserted it later, and has changed in nothing else.
    with_fields = {"account": {"$exists": True}, "created_by": {"$exists": True}}
    assert old.images.count_documents({"_id": {"$in": old_ids}} | with_fields) == len(old_ids)
    for name in ("batches", "images"):
        assert old[name].count_documents(_NEW_FIELDS) == old[name].count_documents({})
    after = _terminal(old)
    assert {name: after[name] for name in before} == {name: document | _NEW_FIELDS | _top_score(document) for name, document in before.items()}

    # Nothing is lost: all images are processed, the batches are closed, and the ledger balances.
    claims.expire_leases(old)
    old.images.update_many({}, {"$set": {"work.not_before": utc_now()}})
    turns.repair(old)
    process_all(old)
    while open_batches := closing.find_closable(old):
        closing.close_batches(old, open_batches)
    balance = audit.balance(old)
    assert balance["pending"] == 0
    assert balance["received"] == sum(balance.values()) - balance["received"]
    assert old.batches.find_one({"open": True}) is None
    validate_documents(old)


def _finish_as_old_code(db: Db, batch_id: str) -> None:
    """Finish the images of a batch as a worker of the release before, which does not write the field ``top_score``."""
    process_all(db, "old worker")
    result = {"detections": [{"label": "milk", "score": 0.75, "box": [0, 0, 1, 1]}]}
    changed = db.images.update_many({"batch_id": batch_id, "status": "done"}, {"$set": result, "$unset": {"top_score": ""}})
    assert changed.matched_count == changed.modified_count == 2


def _return_to_old_code(db: Db) -> None:
    """Create the indexes that the release before creates when somebody returns to it."""
    for name in ("images", "batches", "turns"):
        for index in _RELEASE[name]["indexes"]:
            if index["name"] in {*SUPERSEDED.get(name, {}), "pending_1_served_at_1"}:
                db.command("createIndexes", name, indexes=[{key: value for key, value in index.items() if key != "v"}])


def _best(db: Db) -> set[str]:
    """Return the batches of the images that have the highest score of these tests, as a list by score has them."""
    page = page_of_images(db, Filters(min_score=0.75), None, "-score", 1, 100)
    return {batch_of(position.image_id) for position in page.positions}


def test_images_that_old_workers_finish_during_and_after_the_migration_are_completed_when_these_have_ended(old: Db) -> None:
    create_indexes(old)
    process_all(old)
    waiting = commit_new_batch(old, 2)  # the migration visits it before it has a result
    late: list[str] = []

    def finish_between_ranges(progress: Progress) -> None:
        if progress.step == "m0002_top_score: images" and not late:
            late.append(commit_new_batch(old, 2))
            for batch_id in (waiting, *late):
                _finish_as_old_code(old, batch_id)

    runner.migrate(old, finish_between_ranges)
    late.append(commit_new_batch(old, 2))
    _finish_as_old_code(old, late[-1])
    assert not _best(old) & {waiting, *late}
    assert runner.read_status(old).up_to_date
    running = commit_new_batch(old, 2)
    assert runner.finish_update(old).completed == 6
    assert {waiting, *late} <= _best(old)
    assert runner.finish_update(old).completed == 0

    _return_to_old_code(old)
    _finish_as_old_code(old, running)
    old.images.delete_many({"batch_id": {"$lt": waiting}})
    runner.migrate(old)
    assert runner.finish_update(old).completed == 2
    assert running in _best(old)
    validate_documents(old)


@pytest.mark.slow
def test_the_end_of_an_update_visits_only_images_that_had_no_result_before(old: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    _insert_copies(old, utc_now() - timedelta(days=1))
    old.images.delete_many({"status": {"$in": ["queued", "processing"]}})
    runner.migrate(old)
    batch_id = commit_new_batch(old, 5)
    process_all(old)
    monkeypatch.setattr(late_results, "CHUNK", 2)
    visited: list[int] = []
    for _ in range(2):
        _return_to_old_code(old)
        runner.migrate(old)
        runner.finish_update(old, lambda progress: visited.append(progress.done) if "during the update" in progress.step else None)
    assert visited == [2, 4, 5] * 2
    assert old.images.count_documents({"_id": {"$gte": batch_id}}) == 5


def test_the_indexes_of_older_versions_that_are_not_used_any_more_are_kept_and_named(old: Db) -> None:
    runner.migrate(old)
    declared = {(document._meta["collection"], index.document["name"]) for document in DOCUMENTS for index in document.indexes}
    kept = {(name, index) for name in _RELEASE.keys() - SUPERSEDED_COLLECTIONS for index in old[name].index_information() if index != "_id_"}
    superseded = {f"{name}.{index}" for name, index in kept - declared}
    assert "images.unfinished_or_bad" in superseded
    assert runner.read_status(old).superseded_indexes.keys() == superseded
    assert superseded == {f"{name}.{index}" for name, indexes in SUPERSEDED.items() for index in indexes}
    replacements = {(name, purpose.rpartition("replaced by ")[2]) for name, indexes in SUPERSEDED.items() for purpose in indexes.values()}
    assert replacements <= declared


def test_an_update_of_a_database_with_data_of_the_release_before_is_finished_by_hand(old: Db) -> None:
    assert not update_end.is_update_finished(old)
    runner.migrate(old)
    assert runner.read_status(old).up_to_date
    assert not update_end.is_update_finished(old)
    assert runner.migrate(old) == []
    steps: list[Progress] = []
    finished = runner.finish_update(old, steps.append)
    assert update_end.is_update_finished(old)
    superseded = {f"{name}.{index}" for name, indexes in SUPERSEDED.items() for index in indexes}
    assert set(finished.dropped) == superseded | SUPERSEDED_COLLECTIONS
    dropping = [progress for progress in steps if progress.step.startswith("dropping")]
    assert [(progress.done, progress.total) for progress in dropping] == [(number, len(superseded)) for number in range(len(superseded))]
    status = runner.read_status(old)
    assert (status.up_to_date, status.superseded_indexes, status.update_finished) == (True, {}, True)
    assert not SUPERSEDED_COLLECTIONS & set(old.list_collection_names())
    declared = {(document._meta["collection"], index.document["name"]) for document in DOCUMENTS for index in document.indexes}
    built = {(name, index) for name, _ in declared for index in old[name].index_information() if index != "_id_"}
    assert built == declared


@pytest.mark.slow
def test_the_end_of_an_update_that_is_interrupted_after_any_index_is_repeated(old: Db) -> None:
    runner.migrate(old)
    total = len(runner.read_status(old).superseded_indexes)
    for left in range(total - 1, -1, -1):
        failpoints.install(_interrupt)
        try:
            with pytest.raises(InterruptedError):
                runner.finish_update(old)
        finally:
            failpoints.install(None)
        assert len(runner.read_status(old).superseded_indexes) == left
        assert not update_end.is_update_finished(old)
    assert runner.finish_update(old).dropped == ("turns",)
    assert update_end.is_update_finished(old)
    assert runner.read_status(old).holder is None


def _interrupt(name: str) -> None:
    if name == "migration.index-dropped":
        raise InterruptedError


def test_an_update_after_a_return_to_the_release_before_has_to_be_finished_again(old: Db) -> None:
    runner.migrate(old)
    runner.finish_update(old)
    _return_to_old_code(old)
    assert not update_end.is_update_finished(old)  # also before ``migrate``, while processes of both versions can be running
    status = runner.read_status(old)
    assert (status.up_to_date, status.update_finished, status.returned, status.pending) == (False, False, True, ())
    assert runner.migrate(old) == []
    status = runner.read_status(old)
    assert (status.up_to_date, status.returned) == (True, False)
    assert not update_end.is_update_finished(old)
    assert "images.claimable" in runner.finish_update(old).dropped
    assert update_end.is_update_finished(old)


def test_images_are_not_processed_again_while_an_old_process_can_be_running_after_a_return(old: Db) -> None:
    runner.migrate(old)
    runner.finish_update(old)
    batch_id = commit_new_batch(old, 1)
    process_all(old)
    old.command("createIndexes", "images", indexes=[{"name": "claimable", "key": {"store_name": 1, "_id": 1}, "partialFilterExpression": {"status": "queued"}}])
    with pytest.raises(Conflict) as caught:
        _process_again(old, batch_id)
    assert caught.value.code == "update_unfinished"
    assert runner.finish_update(old).dropped == ("images.claimable",)
    _process_again(old, batch_id)


def _process_again(db: Db, batch_id: str) -> None:
    assert reprocessing.reprocess(db, batch_id, {}, Options(), None).queued


def _finish_again_as_old_code(db: Db, batch_id: str, *, fail: bool = False) -> None:
    """Finish the images of a batch as a worker of the version before, which writes neither ``shown`` nor ``history``."""
    claim = claims.claim(db, "old worker", 32, 60)
    assert {image["batch_id"] for image in claim.images} == {batch_id}
    result: dict[str, Any] = {"status": "done", "error": None, "detections": []}
    if fail:
        result = {"status": "failed", "error": {"code": "corrupt", "detail": "x"}}
    result |= claims.LEASES.unheld() | {"work.finisher": "old worker"}
    finished = {"$set": result, "$currentDate": {"finished_at": True, "updated_at": True}}
    assert db.images.update_many({"batch_id": batch_id, "work.owner": "old worker"}, finished).modified_count == len(claim.images)
    closing.close_batches(db, [batch_id])


def _read_shown(db: Db, batch_id: str) -> list[tuple[str, dict[str, int] | None, int]]:
    """Return, for each image of a batch, its state, ``shown``, and the fence of its last attempt."""
    images = db.images.find({"batch_id": batch_id}).sort("index", 1)
    return [(image["status"], image.get("shown"), image["work"]["fence"]) for image in images]


def test_after_a_return_the_images_that_old_workers_have_processed_again_show_their_last_result(old: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_shown, "CHUNK", 2)
    monkeypatch.setattr(late_shown, "_BATCHES", 1)
    old.images.update_many({"status": {"$in": ["queued", "processing"]}}, {"$set": {"status": "failed"}})
    runner.migrate(old)
    runner.finish_update(old)
    names = ("by old", "twice by old", "failed by old", "failed by new", "cancelled", "released by old, then cancelled", "once")
    batches = {name: commit_new_batch(old, 2) for name in names}
    claim = claims.claim(old, "worker", 32, 60)
    results.finish(old, "worker", successful_results(claim, detections=[{"label": "milk", "score": 0.5, "box": [0, 0, 1, 1]}], top_score=0.5))
    closing.close_batches(old, batches.values())

    _process_again(old, batches["failed by new"])
    results.finish(old, "worker", failed_results(claims.claim(old, "worker", 32, 60)))
    _process_again(old, batches["cancelled"])
    claims.release(old, "worker", claims.claim(old, "worker", 32, 60).leases, "environment")
    cancellation.cancel(old, batches["cancelled"], None)
    _process_again(old, batches["twice by old"])
    process_all(old)
    for name in ("by old", "twice by old", "failed by old"):
        _process_again(old, batches[name])
        _finish_again_as_old_code(old, batches[name], fail=name == "failed by old")
    _process_again(old, batches["released by old, then cancelled"])
    claims.release(old, "worker", claims.claim(old, "worker", 32, 60).leases, "environment")
    old.images.update_many({"batch_id": batches["released by old, then cancelled"]}, {"$pop": {"history.attempts": 1}})
    cancellation.cancel(old, batches["released by old, then cancelled"], None)
    _return_to_old_code(old)
    runner.migrate(old)
    unchanged = {name: _read_shown(old, batches[name]) for name in names if "by old" not in name or "then" in name}
    visited: list[int] = []
    assert runner.finish_update(old, lambda progress: visited.append(progress.done) if "batches" in progress.step else None).completed == 6

    assert _read_shown(old, batches["by old"]) == [("done", {"fence": 2}, 2)] * 2
    assert _read_shown(old, batches["twice by old"]) == [("done", {"fence": 3}, 3)] * 2
    assert _read_shown(old, batches["failed by old"]) == [("failed", None, 2)] * 2
    assert {name: _read_shown(old, batches[name]) for name in unchanged} == unchanged
    assert [(state, (shown or {})["fence"], fence) for state, shown, fence in unchanged["failed by new"]] == [("done", 1, 2)] * 2
    assert old.images.count_documents({"batch_id": {"$in": [batches["by old"], batches["twice by old"]]}, "top_score": {"$exists": True}}) == 0
    assert visited[-1] == old.batches.count_documents({})
    assert len(visited) > 3
    validate_documents(old)
    _return_to_old_code(old)
    runner.migrate(old)
    assert runner.finish_update(old).completed == 0


def test_batches_are_visited_at_the_end_of_an_update_only_after_a_return(old: Db) -> None:
    runner.migrate(old)
    steps: list[str] = []
    runner.finish_update(old, lambda progress: steps.append(progress.step))
    assert not any("batches" in step for step in steps)
    _return_to_old_code(old)
    runner.finish_update(old, lambda progress: steps.append(progress.step))
    assert any("batches" in step for step in steps)


@pytest.mark.slow
def test_images_that_waited_when_the_update_began_are_processed_by_the_new_workers(old: Db) -> None:
    runner.migrate(old)
    claims.expire_leases(old)
    old.images.update_many({}, {"$set": {"work.not_before": utc_now()}})
    waiting = old.images.count_documents({"status": "queued"})
    assert waiting > 0
    restored, last = turns.repair(old)
    assert last is None
    assert {turn.store for turn in restored} <= set(old.images.distinct("store_name"))
    assert {(turn.account, turn.priority) for turn in restored} <= {(None, "normal")}
    before = old.images.count_documents({"status": "done"})
    process_all(old)
    assert old.images.count_documents({"status": "done"}) == before + waiting
    validate_documents(old)


@pytest.mark.slow
def test_a_deletion_by_old_code_is_corrected_in_the_new_counts(old: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 16)
    monkeypatch.setattr(segments, "GROUP", 4)
    monkeypatch.setattr(page_index, "_CHUNK", 16)
    later = utc_now() + timedelta(hours=1)
    _insert_copies(old, later - timedelta(minutes=10))
    runner.migrate(old)
    while page_index.maintain(old, now=later):
        pass
    while not sums.refresh(old, time.monotonic() + 60, now=later).complete:
        pass
    listed = old.batches.count_documents({"listed": True})
    assert old.rank_groups.count_documents({}) > 0
    assert old.ledger_segments.count_documents({}) > 0

    (oldest,) = old.batches.find({"listed": True}, {"_id": 1}).sort("_id", 1).limit(1)
    _delete_as_old_code(old, oldest["_id"])
    for counts in (old.ranks, old.rank_groups):  # they were counted in the future, in which the copies were accepted
        counts.update_many({"checked_at": {"$exists": True}}, {"$set": {"checked_at": utc_now() - timedelta(days=1)}})
    for _ in range(old.rank_groups.count_documents({})):  # each call verifies one group
        page_index.recount(old, 1000)
    assert queries.page_of_batches(old, Filters(), None, 1, 1).total == listed - 1
    last = queries.page_of_batches(old, Filters(), None, -(-(listed - 1) // 100), 100)
    assert len(last.batches) == (listed - 1) % 100
    old.ledger_segments.update_many({}, {"$set": {"due": True}, "$inc": {"changes": 1}})  # as after their rotation
    refreshed = sums.refresh(old, time.monotonic() + 60, now=later)
    totals = sums.read_totals(old)
    assert (refreshed.imbalances, refreshed.complete) == ([], True)
    assert totals is not None
    assert totals.counts == sums.count_interval(old)


@pytest.mark.slow
def test_lists_deletions_keys_and_inspections_work_on_upgraded_data(old: Db) -> None:
    runner.migrate(old)
    listed = old.batches.count_documents({"listed": True})
    while page_index.maintain(old):
        pass
    page = queries.page_of_batches(old, Filters(), None, 1, 100)
    shown = [batch["_id"] for batch in page.batches]
    assert (page.total, len(shown)) == (listed, listed)
    found = queries.page_of_batches(old, Filters(barcode="4006381333931"), None, 1, 1)
    assert found.total == 1

    deletion.begin_delete(old, shown[-1], None)
    for batch in old.batches.find({"deleting": True}):
        deletion.finish_delete(old, batch["_id"])
    assert old.images.find_one({"status": "deleting"}) is None
    assert queries.page_of_batches(old, Filters(), None, 1, 1).total == listed - 1
    balance = audit.balance(old)
    assert balance["received"] == sum(balance.values()) - balance["received"]

    stored = idempotency.read_response(old, idempotency.RequestKey(":queued", "0" * 64))
    assert queries.get_batch(old, stored.batch_id, None)["status"] == "queued"

    assert jobs.expire_leases(old, 10) == 1
    assert {job.status for job in jobs.claim(old, "inspector", 10, 60)} == {"processing"}
