"""The files of cancelled images: their originals are stored, and the files of lost claims are deleted."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.bootstrap import Stores
from shared.ledger import results
from shared.storage.blob_keys import spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.images.reprocessed_batches import (
    list_folders,
    post,
    read_files,
    upload_batch,
)
from tests.integration.worker.running import count, run
from tests.support.ledger import finish_earlier
from tests.support.web_client import make_image
from worker.images.pipeline import ImagePipeline
from worker.spools.settlement import settle
from worker.sweep.sweep import Sweep


def test_the_original_of_a_cancelled_image_is_written_from_the_spool_and_can_be_processed(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    batch = upload_batch(web, db)
    assert post(web, batch["batch_id"], "cancel") == {"cancelled": 2, "running": 0}
    finish_earlier(db, 60)
    Sweep(stores).tick()
    assert blobs.stat(spool_key(batch["batch_id"])) is None
    png, jpeg = (image["id"] for image in batch["images"])
    assert web.get(f"/uploads/{png}.png").data == make_image(0, (64, 48), "PNG")
    assert web.get(f"/uploads/{jpeg}.jpg").data == make_image(1, (64, 48), "JPEG")
    for path in (f"/uploads/{png}.jpg", f"/uploads/{jpeg}/thumb.jpg"):
        refused = web.get(path)
        assert (refused.status_code, refused.get_json()["code"]) == (404, "image_cancelled")
    assert [record.message for record in caplog.records if "missing" in record.message] == []
    shown = web.get(f"/image_batches/{batch['batch_id']}").get_json()
    assert (shown["status"], shown["counts"]["cancelled"], shown["images"][0]["status"]) == ("cancelled", 2, "cancelled")
    assert post(web, batch["batch_id"], "reprocess", {"only": "cancelled"}) == {"queued": 2, "generation": 1}
    run(pipeline)
    read_files(web, batch)
    assert web.get(f"/image_batches/{batch['batch_id']}").get_json()["status"] == "done"


def test_an_original_whose_spool_is_settled_while_it_is_opened_is_served(
    web: FlaskClient, db: Db, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db, 1)
    post(web, batch["batch_id"], "cancel")
    read = LocalBlobs.read

    def settle_and_read(self: LocalBlobs, key: str, *arguments: Any) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(LocalBlobs, "read", read)
            settle(stores, [batch["batch_id"]])
        return read(self, key, *arguments)

    monkeypatch.setattr(LocalBlobs, "read", settle_and_read)
    assert web.get(f"/uploads/{batch['images'][0]['id']}.png").data == make_image(0, (64, 48), "PNG")


def test_the_files_of_a_lost_claim_of_a_cancelled_image_are_deleted(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_batch(web, db)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "finish", die)
    with pytest.raises(KeyboardInterrupt):
        run(pipeline)
    assert list_folders(blobs_root, batch) == [{"1"}] * 2
    post(web, batch["batch_id"], "cancel")
    assert count(db) == {"cancelled": 2}
    finish_earlier(db, 60)
    Sweep(stores).tick()
    assert db.batches.count_documents({"spooled": True}) == 0
    finish_earlier(db, 3600)
    Sweep(stores).tick()
    assert list_folders(blobs_root, batch) == [set()] * 2
    assert db.batches.count_documents({"unswept": True}) == 0


def test_a_cancelled_image_whose_spool_still_exists_is_processed_from_it(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    batch = upload_batch(web, db)
    post(web, batch["batch_id"], "cancel")
    post(web, batch["batch_id"], "reprocess", {"only": "cancelled"})
    run(pipeline)
    read_files(web, batch)
