"""Tests that damaged originals are found after their spools have been deleted."""

import errno
import logging
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared.bootstrap import Stores, open_stores
from shared.errors import StoreAway
from shared.ledger import original_checks
from shared.ledger.original_checks import OriginalChecks
from shared.settings import Settings
from shared.storage.blob_keys import IDENTITY, original_key, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import run, upload
from tests.support.ledger import commit_new_batch, process_all
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep import samples
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow
NO_LIMIT = float("inf")


def test_a_damaged_original_is_reported_and_counted(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    stores: Stores,
    caplog: pytest.LogCaptureFixture,
) -> None:
    accepted = upload(web, db, [image_payload(make_image(1))])
    image_id = accepted["images"][0]["id"]
    run(pipeline)
    wait_until(lambda: db.batches.find_one({"spooled": True}) is None)
    Sweep(stores).tick()
    intact = original_checks.read(db)
    assert intact.checked > 0
    assert intact.damaged == 0
    assert caplog.records == []
    blobs.write(original_key(image_id, "jpg"), [b"x" * len(make_image(1))])
    samples.check(stores, 0.0)
    assert original_checks.read(db) == OriginalChecks(intact.checked + 1, 1)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert image_id in caplog.text
    metrics = web.get("/metrics").get_data(as_text=True)
    assert f"shelfsight_originals_checked_total {intact.checked + 1}.0" in metrics
    assert "shelfsight_originals_damaged_total 1.0" in metrics


@pytest.mark.parametrize(
    ("number", "unreadable", "damaged"),
    [(errno.EIO, ".jpg", 1), (errno.EIO, "", 0), (errno.EACCES, ".jpg", 0)],
    ids=["a bad sector", "a bad disk", "a wrong owner"],
)
def test_an_original_that_cannot_be_read_is_damaged_if_others_can(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, stores: Stores, monkeypatch: pytest.MonkeyPatch, number: int, unreadable: str, damaged: int
) -> None:
    upload(web, db, [image_payload(make_image(1))])
    run(pipeline)
    wait_until(lambda: db.batches.find_one({"spooled": True}) is None)
    pread = os.pread

    def fail(handle: int, length: int, offset: int) -> bytes:
        if unreadable in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(number, os.strerror(number))
        return pread(handle, length, offset)

    monkeypatch.setattr(os, "pread", fail)
    with nullcontext() if damaged else pytest.raises(StoreAway):
        samples.check(stores, 0.0)
    assert original_checks.read(db) == OriginalChecks(damaged, damaged)


@pytest.mark.parametrize("excuse", ["spooled", "reported missing", "deleted", "no batch"])
def test_nothing_is_reported_that_is_not_lost_or_already_known(
    web: FlaskClient,
    db: Db,
    stores: Stores,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    caplog: pytest.LogCaptureFixture,
    excuse: str,
) -> None:
    if excuse == "spooled":
        commit_new_batch(db)
        process_all(db)
    elif excuse != "no batch":
        accepted = upload(web, db, [image_payload(make_image(1))])
        if excuse == "reported missing":
            blobs.delete(spool_key(accepted["batch_id"]))
        run(pipeline)
        wait_until(lambda: db.batches.find_one({"spooled": True}) is None)
        if excuse == "deleted":
            assert web.delete(accepted["links"]["self"]).status_code == 204
    caplog.clear()
    samples.check(stores, NO_LIMIT)
    assert caplog.records == []
    assert original_checks.read(db) == OriginalChecks(0, 0)


def test_a_blob_store_that_is_not_mounted_is_not_reported_as_damage(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = upload(web, db, [image_payload(make_image(1))])
    run(pipeline)
    wait_until(lambda: db.batches.find_one({"spooled": True}) is None)
    blobs.delete_tree("files")
    blobs.write(IDENTITY, [b"another identity"])
    caplog.clear()
    Sweep(stores).tick()
    assert [record for record in caplog.records if accepted["images"][0]["id"] in record.message] == []
    assert original_checks.read(db).damaged == 0


def test_a_slow_disk_is_not_checked_more_often_than_a_quick_one(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    upload(web, db, [image_payload(make_image(1))])
    run(pipeline)
    wait_until(lambda: db.batches.find_one({"spooled": True}) is None)
    intervals = {"interval_s": 1e-6, "clean_interval_s": 3600}  # every call reaches its time limit
    no_time = worker_settings.model_copy(update={"sweep": worker_settings.sweep.model_copy(update=intervals)})
    sweep = Sweep(open_stores(no_time, app="test", db=db, blobs=blobs))
    for _ in range(3):
        sweep.tick()
    assert original_checks.read(db) == OriginalChecks(1, 0)


def test_all_images_can_be_chosen(db: Db) -> None:
    for _ in range(3):
        commit_new_batch(db, images=4)
    process_all(db)
    db.batches.update_many({}, {"$unset": {"spooled": ""}})
    chosen = set()
    for _ in range(3000):
        image = original_checks.choose_image(db)
        assert image is not None
        chosen.add(image["_id"])
        if len(chosen) == 12:
            return
    raise AssertionError(f"only {len(chosen)} of 12 images were chosen")
