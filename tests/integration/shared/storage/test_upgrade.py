"""Data that the release before wrote is upgraded while old and new code write to the same database.

``tests/fixtures/README.md`` says how the data was made.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Self

import pytest

from shared.inspections import jobs
from shared.ledger import (
    audit,
    claims,
    closing,
    deletion,
    idempotency,
    page_index,
    queries,
    segments,
    sums,
    turns,
)
from shared.ledger.filters import Filters
from shared.storage.indexes import create_indexes
from shared.storage.migrations import runner
from shared.storage.mongo import Db
from tests.integration.shared.storage.old_release import (
    RELEASE,
    delete_as_old_code,
    insert_as_old_code,
    insert_copies,
)
from tests.support.ledger import (
    commit_new_batch,
    process_all,
    utc_now,
    validate_documents,
)

_NEW_FIELDS: Final = {"account": None, "created_by": None}

def test_the_fixture_contains_every_state() -> None:
    states = {name: {document.get("status") for document in RELEASE[name]["documents"]} for name in ("batches", "images", "inspections")}
    assert states["images"] == {"queued", "processing", "done", "failed", "deleting"}
    assert states["batches"] == {"queued", "done", "partial", "failed"}
    assert states["inspections"] == {"queued", "processing", "done", "failed"}
    assert {line["state"] for line in RELEASE["ledger"]["documents"]} == {"accepted", "deleted", "abandoned"}
    assert any("count" in segment for segment in RELEASE["ranks"]["documents"])


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


@pytest.mark.slow
def test_data_of_the_release_before_is_upgraded_under_load(old: Db) -> None:
    insert_copies(old, utc_now() - timedelta(days=1))
    before, old_ids = _terminal(old), [image["_id"] for image in old.images.find({}, {"_id": 1})]

    def upload_as_old_code() -> None:
        insert_as_old_code(old)

    def upload_and_process() -> None:
        commit_new_batch(old, 2, "new")
        process_all(old, "worker")

    create_indexes(old)  # this version does not start without its indexes
    with Load(upload_as_old_code, upload_and_process) as load:
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
    insert_copies(old, later - timedelta(minutes=10))
    runner.migrate(old)
    while page_index.maintain(old, now=later):
        pass
    while not sums.refresh(old, time.monotonic() + 60, now=later).complete:
        pass
    listed = old.batches.count_documents({"listed": True})
    assert old.rank_groups.count_documents({}) > 0
    assert old.ledger_segments.count_documents({}) > 0

    (oldest,) = old.batches.find({"listed": True}, {"_id": 1}).sort("_id", 1).limit(1)
    delete_as_old_code(old, oldest["_id"])
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
