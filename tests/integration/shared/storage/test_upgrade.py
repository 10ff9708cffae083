"""Data that the release before wrote is upgraded while old and new code write to the same database.

``tests/fixtures/README.md`` says how the data was made.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, Self

import pytest
from bson import json_util

from shared import settings
from shared.ids import image_id
from shared.inspections import jobs
from shared.ledger import audit, claims, closing, commits, deletion, idempotency, page_index, queries
from shared.storage.migrations import runner
from shared.storage.mongo import Db, connect
from tests.support.ledger import batch_id_at, commit_new_batch, new_batch, process_all, utc_now, validate_documents
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
    yield db
    db.client.drop_database(db.name)
    db.client.close()


def _insert_copies(db: Db) -> None:
    batch = db.batches.find_one({"status": "done", "listed": True})
    assert batch is not None
    line = db.ledger.find_one({"_id": batch["_id"]})
    images = list(db.images.find({"batch_id": batch["_id"]}).sort("index", 1))
    assert line is not None
    copies: dict[str, list[dict[str, Any]]] = {"batches": [], "ledger": [], "images": []}
    for number in range(_COPIES):
        batch_id = batch_id_at(utc_now() - timedelta(days=1, seconds=number), number)
        copies["batches"].append(batch | {"_id": batch_id})
        copies["ledger"].append(line | {"_id": batch_id})
        copies["images"] += [image | {"_id": image_id(batch_id, image["index"]), "batch_id": batch_id} for image in images]
    for name, documents in copies.items():
        db[name].insert_many(documents)


def _insert_as_old_code(db: Db) -> None:
    """Insert a batch without the fields that the release before does not know."""
    new = new_batch(2, "old")
    header = commits.batch_document(new)
    images = [commits.image_document(new, image) for image in new.images]
    for document in [header, *images]:
        for name in _NEW_FIELDS:
            del document[name]
    db.ledger.insert_one({"_id": new.id, "received": 2, "deleted": 0, "state": "accepted", "at": new.created_at})
    db.batches.insert_one(header)
    db.images.insert_many(images)


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


def test_the_fixture_contains_every_state() -> None:
    states = {name: {document.get("status") for document in _RELEASE[name]["documents"]} for name in ("batches", "images", "inspections")}
    assert states["images"] == {"queued", "processing", "done", "failed", "deleting"}
    assert states["batches"] == {"queued", "done", "partial", "failed"}
    assert states["inspections"] == {"queued", "processing", "done", "failed"}
    assert {line["state"] for line in _RELEASE["ledger"]["documents"]} == {"accepted", "deleted", "abandoned"}
    assert any("count" in segment for segment in _RELEASE["ranks"]["documents"])


def test_data_of_the_release_before_is_upgraded_under_load(old: Db) -> None:
    _insert_copies(old)
    before, old_ids = _terminal(old), [image["_id"] for image in old.images.find({}, {"_id": 1})]

    def insert_as_old_code() -> None:
        _insert_as_old_code(old)

    def upload_and_process() -> None:
        commit_new_batch(old, 2, "new")
        process_all(old, "worker")

    with Load(insert_as_old_code, upload_and_process) as load:
        while min(load.counts.values()) < 2:
            assert not load._errors
        assert runner.migrate(old)[0] == "m0001_accounts"
    assert runner.read_status(old).up_to_date

    # Every document has the fields or lacks them because old code inserted it later, and has changed in nothing else.
    with_fields = {"account": {"$exists": True}, "created_by": {"$exists": True}}
    assert old.images.count_documents({"_id": {"$in": old_ids}} | with_fields) == len(old_ids)
    for name in ("batches", "images"):
        assert old[name].count_documents(_NEW_FIELDS) == old[name].count_documents({})
    after = _terminal(old)
    assert {name: after[name] for name in before} == {name: document | _NEW_FIELDS for name, document in before.items()}

    # Nothing is lost: all images are processed, the batches are closed, and the ledger balances.
    claims.expire_leases(old)
    old.images.update_many({}, {"$set": {"work.not_before": utc_now()}})
    for store in old.images.distinct("store_name"):
        old.turns.update_one({"_id": store}, {"$set": {"pending": True, "seq": 1, "served_at": utc_now()}}, upsert=True)
    process_all(old)
    while open_batches := closing.find_closable(old):
        closing.close_batches(old, open_batches)
    balance = audit.balance(old)
    assert balance["pending"] == 0
    assert balance["received"] == sum(balance.values()) - balance["received"]
    assert old.batches.find_one({"open": True}) is None
    validate_documents(old)


def test_lists_deletions_keys_and_inspections_work_on_upgraded_data(old: Db) -> None:
    runner.migrate(old)
    listed = old.batches.count_documents({"listed": True})
    while page_index.maintain(old):
        pass
    page = queries.page_of_batches(old, queries.Filters(), 1, 100)
    shown = [batch["_id"] for batch in page.batches]
    assert (page.total, len(shown)) == (listed, listed)
    found = queries.page_of_batches(old, queries.Filters(barcode="4006381333931"), 1, 1)
    assert found.total == 1

    deletion.begin_delete(old, shown[-1])
    for batch in old.batches.find({"deleting": True}):
        deletion.finish_delete(old, batch["_id"])
    assert old.images.find_one({"status": "deleting"}) is None
    assert queries.page_of_batches(old, queries.Filters(), 1, 1).total == listed - 1
    balance = audit.balance(old)
    assert balance["received"] == sum(balance.values()) - balance["received"]

    stored = idempotency.read_response(old, idempotency.RequestKey(":queued", "0" * 64))
    assert queries.get_batch(old, stored.batch_id)["status"] == "queued"

    assert jobs.expire_leases(old, 10) == 1
    assert {job.status for job in jobs.claim(old, "inspector", 10, 60)} == {"processing"}
