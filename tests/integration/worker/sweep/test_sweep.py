"""What the sweep cleans: spools whose originals stand, and what was left behind."""

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
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow


def test_the_sweep_deletes_a_spool_when_every_original_stands_and_mends_one_that_does_not(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    said = upload(web, db, [image_payload(make_image(1)), image_payload(make_image(2))])
    run(pipeline)
    spoiled = said["images"][0]["id"]
    blobs.write(original_key(spoiled, "jpg"), [b"x" * len(make_image(1))])
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(said["batch_id"])) is None
    assert web.get(said["images"][0]["file_path"]).data == make_image(1)


def test_the_sweep_keeps_a_spool_that_it_cannot_vouch_for_and_goes_on_with_others(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    bad = upload(web, db, [image_payload(make_image(1))])
    good = upload(web, db, [image_payload(make_image(2))])
    lost = upload(web, db, [image_payload(make_image(3))])
    blobs.write(spool_key(lost["batch_id"]), [b"nothing of it"])
    run(pipeline)
    assert web.get(lost["links"]["self"]).get_json()["images"][0]["error"]["code"] == "bytes_missing"
    blobs.write(original_key(bad["images"][0]["id"], "jpg"), [b"spoiled"])
    blobs.write(spool_key(bad["batch_id"]), [b"spoiled too"])
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    for _ in range(2):
        sweep.tick()
        time.sleep(0.02)
    assert blobs.stat(spool_key(bad["batch_id"])) is not None
    assert blobs.stat(spool_key(lost["batch_id"])) is not None
    assert blobs.stat(spool_key(good["batch_id"])) is None
    assert db.batches.count_documents({"spooled": True}) == 0  # not asked again for ever


def test_bytes_that_were_called_missing_and_are_in_the_spool_after_all_are_kept(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings
) -> None:
    said = upload(web, db, [image_payload(make_image(1)), image_payload(make_image(2))])
    whole = blobs.read(spool_key(said["batch_id"]))
    blobs.delete(spool_key(said["batch_id"]))
    run(pipeline)
    blobs.write(spool_key(said["batch_id"]), [whole])
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    images = web.get(said["links"]["self"]).get_json()["images"]
    assert [image["error"]["code"] for image in images] == ["bytes_missing"] * 2
    assert [web.get(image["file_path"]).data for image in images] == [make_image(1), make_image(2)]
    assert blobs.stat(spool_key(said["batch_id"])) is None


def test_nothing_is_cleaned_in_a_store_that_is_not_the_databases(db: Db, blobs: LocalBlobs, worker_settings: Settings) -> None:
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    sweep.tick()
    blobs.write(IDENTITY, [b"another"])
    blobs.write(spool_key("0" * 32), [b"accepted by another database"])
    time.sleep(0.05)
    sweep.tick()
    assert blobs.stat(spool_key("0" * 32)) is not None
    assert db.ledger.count_documents({}) == 0


def test_a_spool_of_no_batch_goes_after_its_tombstone_stands(db: Db, blobs: LocalBlobs, worker_settings: Settings) -> None:
    name = "0" * 32
    blobs.write(spool_key(name), [b"left over"])
    time.sleep(0.05)
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(name)) is None
    assert db.ledger.find_one({"_id": name})["state"] == "abandoned"  # type: ignore[index]


def test_what_a_broken_off_removal_left_is_removed(db: Db, blobs: LocalBlobs, worker_settings: Settings, blobs_root: Path) -> None:
    blobs.write_many([(f"{TEMP}/tree/0/1/thumb", [b"1"]), (f"{TEMP}/being-written", [b"2"])])
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert [path.name for path in (blobs_root / TEMP).iterdir()] == ["being-written"]
