"""Tests that the sweep deletes spools whose originals are stored, and files that were left behind."""

import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared.bootstrap import open_stores
from shared.settings import Settings
from shared.storage.blob_keys import IDENTITY, original_key, spool_key
from shared.storage.local_blobs import TEMP, LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import run, upload
from tests.support.ledger import finish_earlier
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("without_settling")
def test_the_sweep_settles_a_spool_that_its_worker_left_and_restores_a_missing_original(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    accepted = upload(web, db, [image_payload(make_image(1)), image_payload(make_image(2))])
    run(pipeline)
    blobs.delete(original_key(accepted["images"][0]["id"], "jpg"))
    finish_earlier(db, 60)
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(accepted["batch_id"])) is None
    assert web.get(accepted["images"][0]["file_path"]).data == make_image(1)


@pytest.mark.usefixtures("without_settling")
def test_the_sweep_leaves_a_spool_to_its_worker_for_some_seconds(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    accepted = upload(web, db, [image_payload(make_image(1))])
    run(pipeline)
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(accepted["batch_id"])) is not None


@pytest.mark.usefixtures("without_settling")
def test_the_sweep_keeps_a_spool_whose_originals_are_not_verified_and_continues_with_others(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    damaged = upload(web, db, [image_payload(make_image(1))])
    intact = upload(web, db, [image_payload(make_image(2))])
    lost = upload(web, db, [image_payload(make_image(3))])
    blobs.write(spool_key(lost["batch_id"]), [b"other bytes"])
    run(pipeline)
    assert web.get(lost["links"]["self"]).get_json()["images"][0]["error"]["code"] == "bytes_missing"
    blobs.write(original_key(damaged["images"][0]["id"], "jpg"), [b"damaged"])
    blobs.write(spool_key(damaged["batch_id"]), [b"also damaged"])
    finish_earlier(db, 60)
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    for _ in range(2):
        sweep.tick()
        time.sleep(0.02)
    assert blobs.stat(spool_key(damaged["batch_id"])) is not None
    assert blobs.stat(spool_key(lost["batch_id"])) is not None
    assert blobs.stat(spool_key(intact["batch_id"])) is None
    # No batch is marked as spooled, so the sweep does not check the kept spools again at each tick.
    assert db.batches.count_documents({"spooled": True}) == 0


@pytest.mark.usefixtures("without_settling")
def test_originals_reported_missing_are_stored_when_the_spool_is_found_again(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    accepted = upload(web, db, [image_payload(make_image(1)), image_payload(make_image(2))])
    spool = blobs.read(spool_key(accepted["batch_id"]))
    blobs.delete(spool_key(accepted["batch_id"]))
    run(pipeline)
    blobs.write(spool_key(accepted["batch_id"]), [spool])
    finish_earlier(db, 60)
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    images = web.get(accepted["links"]["self"]).get_json()["images"]
    assert [image["error"]["code"] for image in images] == ["bytes_missing"] * 2
    assert [web.get(image["file_path"]).data for image in images] == [make_image(1), make_image(2)]
    assert blobs.stat(spool_key(accepted["batch_id"])) is None


def test_nothing_is_deleted_in_the_blob_store_of_another_database(db: Db, blobs: LocalBlobs, worker_settings: Settings) -> None:
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    sweep.tick()
    blobs.write(IDENTITY, [b"another identity"])
    blobs.write(spool_key("0" * 32), [b"accepted by another database"])
    time.sleep(0.05)
    sweep.tick()
    assert blobs.stat(spool_key("0" * 32)) is not None
    assert db.ledger.count_documents({}) == 0


def test_a_spool_without_a_batch_is_deleted_after_its_tombstone_is_inserted(
    db: Db, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    batch_id = "0" * 32
    blobs.write(spool_key(batch_id), [b"left over"])
    time.sleep(0.05)
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(batch_id)) is None
    assert db.ledger.find_one({"_id": batch_id})["state"] == "abandoned"  # type: ignore[index]


def test_the_rest_of_an_interrupted_deletion_is_deleted(
    db: Db, blobs: LocalBlobs, worker_settings: Settings, blobs_root: Path
) -> None:
    blobs.write_many([(f"{TEMP}/tree/0/1/thumb", [b"1"]), (f"{TEMP}/being-written", [b"2"])])
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert [path.name for path in (blobs_root / TEMP).iterdir()] == ["being-written"]
