"""The sweep keeps the totals of the ledger up to date, and reports where documents are missing."""

import logging
from datetime import timedelta

import pytest

from shared.bootstrap import open_stores
from shared.ledger import audit, sums
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import batch_id_at, commit_new_batch, process_all, utc_now
from worker.sweep.sweep import Sweep


def test_a_tick_counts_the_ledger_and_reports_a_missing_document_once(
    db: Db, blobs: LocalBlobs, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sums, "SEGMENT_BATCHES", 2)
    old = utc_now() - timedelta(minutes=5)
    ids = [commit_new_batch(db, 2, id=batch_id_at(old, number)) for number in range(2)]
    process_all(db)
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    sweep.tick()
    totals = sums.read_totals(db)
    assert totals is not None
    assert totals.counts == audit.balance(db)
    removed = db.images.find_one_and_delete({"batch_id": ids[0]})
    with caplog.at_level(logging.CRITICAL, "shelfsight.error"):
        sweep.tick()
        sweep.tick()
    assert [record.getMessage() for record in caplog.records if "documents are missing" in record.getMessage()] == [
        f"sweep: 1 image documents are missing in the batches after '' up to '{ids[1]}', so documents were removed by hand or lost; restore a backup. Batches: {ids[0]} (1 missing)"
    ]
    caplog.clear()
    assert removed is not None
    db.images.insert_one(removed)
    with caplog.at_level(logging.WARNING, "shelfsight.error"):
        sweep.tick()
        sweep.tick()
    assert [record.getMessage() for record in caplog.records if "complete again" in record.getMessage()] == [
        f"sweep: the batches after '' up to '{ids[1]}' are complete again"
    ]


def test_a_missing_document_of_a_new_batch_is_reported_once(
    db: Db, blobs: LocalBlobs, worker_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = commit_new_batch(db, 2)
    db.images.delete_one({"batch_id": batch_id})
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    with caplog.at_level(logging.CRITICAL, "shelfsight.error"):
        sweep.tick()
        sweep.tick()
    assert [record.getMessage() for record in caplog.records if "documents are missing" in record.getMessage()] == [
        f"sweep: 1 image documents are missing in the batches after '' up to the newest, so documents were removed by hand or lost; restore a backup. Batches: {batch_id} (1 missing)"
    ]
