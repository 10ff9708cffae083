"""An image whose bytes cannot be read ends, delays no other image, and never fails because the whole store is away."""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared.bootstrap import open_stores
from shared.errors import StoreAway
from shared.settings import Settings
from shared.states import READ_ERRORS_ALLOWED, retry_delay_s
from shared.storage.blob_keys import original_key, spool_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, run, run_at_once, upload_images
from tests.support.ledger import validate_documents
from tests.support.web_client import make_image
from worker.images.pipeline import ImagePipeline
from worker.spools.settlement import settle

pytestmark = pytest.mark.slow


@pytest.fixture
def fail_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets the disk return an error for some reads, as for a bad sector."""
    pread = os.pread

    def fail(number: int, is_bad: Callable[[str, int], bool]) -> None:
        def read(handle: int, length: int, offset: int) -> bytes:
            if is_bad(str(Path(f"/proc/self/fd/{handle}").readlink()), offset):
                raise OSError(number, os.strerror(number))
            return pread(handle, length, offset)

        monkeypatch.setattr(os, "pread", read)

    return fail


def codes(db: Db) -> list[str | None]:
    return [image["error"] and image["error"]["code"] for image in db.images.find().sort("_id", 1)]


def read_errors(db: Db, image_id: str) -> tuple[int, int]:
    """Return how many attempts to read an image failed without a result, and how many attempts there were."""
    image = db.images.find_one({"_id": image_id}) or {}
    return image["work"]["read_errors"], image["work"]["fence"]


def test_an_image_in_a_bad_sector_is_released_alone_and_ends(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, fail_reads: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    batch = upload_images(web, db, 16)
    bad = batch["images"][5]["id"]
    offset = (db.images.find_one({"_id": bad}) or {})["work"]["offset"]
    fail_reads(errno.EIO, lambda path, at: path.endswith(f"/spool/{batch['batch_id']}") and at == offset)
    with caplog.at_level(logging.WARNING, "shelfsight.error"):
        run(pipeline)
        assert count(db) == {"done": 15, "queued": 1}
        assert db.images.count_documents({"_id": bad, "work.solo": True, "work.faults": 0}) == 1
        assert any(bad in record.getMessage() and spool_key(batch["batch_id"]) in record.getMessage() and "EIO" in record.getMessage() for record in caplog.records)
        while read_errors(db, bad)[0] + 1 < READ_ERRORS_ALLOWED:
            assert count(db) == {"done": 15, "queued": 1}
            run_at_once(pipeline, db)
        run_at_once(pipeline, db)
    assert codes(db) == [None] * 5 + ["bytes_missing"] + [None] * 10
    assert read_errors(db, bad) == (READ_ERRORS_ALLOWED - 1, READ_ERRORS_ALLOWED)
    assert any(record.levelno == logging.CRITICAL and bad in record.getMessage() for record in caplog.records)
    found = web.get(batch["links"]["self"]).get_json()
    assert (found["status"], found["counts"]["failed"]) == ("partial", 1)
    validate_documents(db)


def test_the_images_wait_longer_after_each_read_error(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, fail_reads: Callable[..., None]
) -> None:
    image_id = upload_images(web, db, 1)["images"][0]["id"]
    fail_reads(errno.EIO, lambda path, _: "/spool/" in path)
    for _ in range(4):
        run_at_once(pipeline, db)
        delay = {"$dateDiff": {"startDate": "$updated_at", "endDate": "$work.not_before", "unit": "second"}}
        found = next(db.images.aggregate([{"$project": {"delay": delay}}]))["delay"]
        assert found == retry_delay_s(read_errors(db, image_id)[0] - 1)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_no_image_is_to_blame_if_nothing_can_be_read(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, fail_reads: Callable[..., None], number: int
) -> None:
    upload_images(web, db, 3)
    db.images.update_many({}, {"$set": {"work.read_errors": READ_ERRORS_ALLOWED - 1}})
    pipeline._identity.check()  # only the small marker can still be read, from the page cache
    fail_reads(number, lambda _path, _offset: True)
    with pytest.raises(StoreAway):
        run_at_once(pipeline, db)
    untouched = {"status": "queued", "work.solo": False, "work.read_errors": READ_ERRORS_ALLOWED - 1}
    assert db.images.count_documents(untouched) == 3


def test_an_image_without_access_waits_for_the_operator_and_delays_no_other(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, fail_reads: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    denied, other = upload_images(web, db, 2), upload_images(web, db, 2)
    with monkeypatch.context():
        fail_reads(errno.EACCES, lambda path, _: path.endswith(denied["batch_id"]))
        for _ in range(READ_ERRORS_ALLOWED + 1):
            run_at_once(pipeline, db)
        waiting = {"status": "queued", "work.solo": False, "work.read_errors": None, "work.released_for": "blobs_misconfigured"}
        assert db.images.count_documents({"batch_id": denied["batch_id"]} | waiting) == 2
        assert db.images.count_documents({"batch_id": other["batch_id"], "status": "done"}) == 2
    monkeypatch.undo()
    run_at_once(pipeline, db)
    assert count(db) == {"done": 4}


def test_an_image_whose_spool_cannot_be_read_is_read_from_its_original(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, fail_reads: Callable[..., None]
) -> None:
    batch = upload_images(web, db, 1)
    blobs.write(original_key(batch["images"][0]["id"], "png"), [make_image(0, (64, 48), "PNG")])
    fail_reads(errno.EIO, lambda path, _: "/spool/" in path)
    run(pipeline)
    assert count(db) == {"done": 1}


def test_an_original_of_an_earlier_claim_that_cannot_be_read_is_rewritten(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_images(web, db, 2)
    original = original_key(batch["images"][0]["id"], "png")
    blobs.write(original, [make_image(0, (64, 48), "PNG")])
    read = LocalBlobs.read
    written: list[str] = []
    write_many = LocalBlobs.write_many

    def read_or_fail(self: LocalBlobs, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key == original and original not in written:
            raise StoreAway("an input/output error", code="blobs_unavailable")
        return read(self, key, offset, length)

    def record(self: LocalBlobs, items: list[tuple[str, list[bytes]]]) -> None:
        written.extend(key for key, _ in items)
        write_many(self, items)

    monkeypatch.setattr(LocalBlobs, "read", read_or_fail)
    monkeypatch.setattr(LocalBlobs, "write_many", record)
    run(pipeline)
    assert original in written
    assert count(db) == {"done": 2}


@pytest.mark.usefixtures("without_settling")
def test_the_spool_of_an_image_that_could_not_be_read_is_kept_and_not_tried_again(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings, fail_reads: Callable[..., None]
) -> None:
    batch = upload_images(web, db, 2)
    fail_reads(errno.EIO, lambda path, at: "/spool/" in path and at == 0)
    db.images.update_many({}, {"$set": {"work.read_errors": READ_ERRORS_ALLOWED - 1}})
    run(pipeline)
    assert codes(db) == ["bytes_missing", None]
    stores = open_stores(worker_settings, app="test", db=db, blobs=blobs)
    assert settle(stores, [batch["batch_id"]]) == {batch["batch_id"]}
    assert db.batches.count_documents({"spooled": True}) == 0
    assert blobs.stat(spool_key(batch["batch_id"])) is not None
