"""Tests that the sweep does the rest of interrupted requests batch by batch, and stops when its time is over."""

from contextlib import suppress
from typing import Any

import pytest

from shared import failpoints
from shared.allowed_stores import AllowedStores
from shared.bootstrap import Stores, open_stores
from shared.ledger import cancellation, reprocessing
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import Killed
from tests.support.ledger import commit_new_batch, process_all
from worker.sweep import batch_requests
from worker.sweep.batch_requests import BatchRequests

pytestmark = pytest.mark.slow
BATCHES = 5
OVER = 0.0
EVERYWHERE: AllowedStores = None


@pytest.fixture
def requests(worker_settings: Settings, db: Db, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> BatchRequests:
    monkeypatch.setattr(batch_requests, "_AT_ONCE", 2)
    stores: Stores = open_stores(worker_settings, app="test", db=db, blobs=blobs)
    return BatchRequests(stores)


def _kill_at(point: str, request: Any) -> None:
    def kill(name: str) -> None:
        if name == point:
            raise Killed

    failpoints.install(kill)
    try:
        with suppress(Killed):
            request()
    finally:
        failpoints.install(None)


def test_one_interrupted_reprocessing_is_completed_before_the_time_is_looked_at(db: Db, requests: BatchRequests) -> None:
    ids = [commit_new_batch(db, 2) for _ in range(BATCHES)]
    process_all(db)
    for batch_id in ids:
        _kill_at("13-reprocessing-marked", lambda name=batch_id: reprocessing.reprocess(db, name, {}, reprocessing.Options(), EVERYWHERE))
    for completed in range(1, BATCHES + 1):
        assert requests.complete(OVER)
        assert db.batches.count_documents({"reprocessing": {"$exists": True}}) == BATCHES - completed
        assert db.images.count_documents({"status": "queued"}) == 2 * completed
    assert not requests.complete(OVER)


def test_the_images_of_one_cancelled_batch_end_before_the_time_is_looked_at(db: Db, requests: BatchRequests) -> None:
    ids = [commit_new_batch(db, 2) for _ in range(BATCHES)]
    for batch_id in ids:
        _kill_at("12-cancellation-marked", lambda name=batch_id: cancellation.cancel(db, name, EVERYWHERE))
    for ended in range(1, BATCHES + 1):
        assert requests.complete(OVER)
        assert db.images.count_documents({"status": "cancelled"}) == 2 * ended
    db.images.update_one({"batch_id": ids[0]}, {"$set": {"status": "queued"}})  # its worker has lost it
    calls = 0
    while db.images.count_documents({"status": "queued"}):
        requests.complete(OVER)
        calls += 1
        assert calls <= 2
    assert not requests.complete(float("inf"))
