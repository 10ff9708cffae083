"""Tests that an original counts as stored only if its bytes are the accepted ones."""

import logging

import pytest
from flask.testing import FlaskClient

from shared.ledger import deletion
from shared.storage.blob_keys import original_key, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import run, upload
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "left",
    [b"x" * len(make_image(1)), make_image(1)[:100], b"", make_image(1) + b"x"],
    ids=["other bytes", "half", "empty", "longer"],
)
def test_a_wrong_original_of_an_earlier_claim_is_rewritten(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, left: bytes
) -> None:
    image_id = upload(web, db, [image_payload(make_image(1))])["images"][0]["id"]
    blobs.write(original_key(image_id, "jpg"), [left])
    pipeline.claim_next()
    assert blobs.read(original_key(image_id, "jpg")) == make_image(1)


def test_an_intact_original_of_an_earlier_claim_is_kept_and_counts_as_stored(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = upload(web, db, [image_payload(make_image(1))])["images"][0]["id"]
    blobs.write(original_key(image_id, "jpg"), [make_image(1)])
    written: list[str] = []
    write_many = LocalBlobs.write_many

    def record(self: LocalBlobs, items: list[tuple[str, list[bytes]]]) -> None:
        written.extend(key for key, _ in items)
        write_many(self, items)

    monkeypatch.setattr(LocalBlobs, "write_many", record)
    run(pipeline)
    assert original_key(image_id, "jpg") not in written
    assert db.images.count_documents({"status": "done", "work.stored": True}) == 1


def test_the_result_of_an_image_records_that_its_original_is_stored(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs
) -> None:
    broken = make_image(1)[: len(make_image(1)) // 2]
    upload(web, db, [image_payload(make_image(1)), image_payload(broken)])
    run(pipeline)
    lost = upload(web, db, [image_payload(make_image(2))])
    blobs.delete(spool_key(lost["batch_id"]))
    run(pipeline)
    stored = [(image["status"], image["work"].get("stored")) for image in db.images.find().sort("_id", 1)]
    assert stored == [("done", True), ("failed", True), ("failed", None)]  # the bytes of the last one are missing


def test_no_bytes_are_reported_missing_if_the_batch_was_deleted_after_the_claim(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    read = LocalBlobs.read

    def delete_first(self: LocalBlobs, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key == spool_key(batch["batch_id"]):
            assert web.delete(batch["links"]["self"]).status_code in {204, 404}
        return read(self, key, offset, length)

    monkeypatch.setattr(LocalBlobs, "read", delete_first)
    with caplog.at_level(logging.CRITICAL, "shelfsight.error"):
        run(pipeline)
    assert caplog.records == []
    assert deletion.claim_with_files(db) == batch["batch_id"]
