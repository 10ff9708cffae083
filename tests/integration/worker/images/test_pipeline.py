"""The way of one claim through the real steps: keep, look, write, finish, close, give back."""

import itertools
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask.testing import FlaskClient

from shared import settings
from shared.bootstrap import open_stores
from shared.errors import StoreAway
from shared.ledger import claims, deletion, results
from shared.settings import Settings
from shared.storage.blob_keys import spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, run, upload
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import Pipeline
from worker.vision import image_steps
from worker.vision.detection import detect
from worker.vision.image_steps import PreparedImage
from worker.vision.imaging import DecodedImage

pytestmark = pytest.mark.slow


def test_a_batch_of_good_and_broken_pictures_ends_as_it_should(web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs) -> None:
    good, png = make_image(1, (640, 480)), make_image(2, (80, 60), "PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT5\xaf\x06\x1e"
    body = {"images": [image_payload(good), image_payload(good[: len(good) // 2]), image_payload(png), image_payload(bomb)], "augmentations": ["rotate"]}
    said = upload(web, db, body)
    run(pipeline)
    batch = web.get(said["links"]["self"]).get_json()
    assert batch["status"] == "partial"
    assert batch["finished_at"]
    assert [image["status"] for image in batch["images"]] == ["done", "failed", "done", "failed"]
    first, cut, rendered, refused = batch["images"]
    assert (first["width"], first["height"], first["model"]["name"]) == (640, 480, "grocery")
    assert [made["name"] for made in first["augmentations"]] == ["rotate"]
    assert cut["error"]["code"] == "truncated"
    assert refused["error"]["code"] == "too_many_pixels"
    for path in (f"/uploads/{first['id']}/thumb.jpg", f"/uploads/{first['id']}/boxes.jpg", f"/uploads/{first['id']}/rotate.jpg", rendered["file_path"]):
        answer = web.get(path)
        assert (answer.status_code, answer.data[:3]) == (200, b"\xff\xd8\xff")
    assert web.get(f"/uploads/{rendered['id']}.png").data == png
    broken = web.get(f"/uploads/{cut['id']}.jpg")
    assert (broken.data, broken.headers["Content-Disposition"][:10]) == (good[: len(good) // 2], "attachment")
    assert web.get(f"/uploads/{cut['id']}/thumb.jpg").get_json(force=True)["code"] == "image_failed"
    assert web.get(f"/uploads/{first['id']}/shear.jpg").status_code == 404


@pytest.mark.slow
def test_a_worker_that_lost_its_lease_overwrites_nothing(
    web: FlaskClient, db: Db, blobs: LocalBlobs, made: Settings, detector: detect.Detector
) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    hasty = Pipeline(open_stores(made.model_copy(update={"worker": settings.Worker(lease_s=1).model_copy(update={"hard_limit_s": 0.1})}), app="test", db=db, blobs=blobs), detector, "worker-a")
    late = hasty.take()
    wait_until(lambda: claims.expire_leases(db) == 1)  # its hard limit is over, so the lease is not renewed
    other = Pipeline(open_stores(made, app="test", db=db, blobs=blobs), detector, "worker-b")
    run(other)
    other.stop()
    before = db.images.find_one({"_id": said["images"][0]["id"]})
    assert before is not None
    assert (before["status"], before["work"]["fence"]) == ("done", 2)
    hasty.work(late)
    hasty.stop()
    assert db.images.find_one({"_id": before["_id"]}) == before
    assert blobs.stat(variant_key(before["_id"], 2, "thumb")) is not None


def test_a_claim_that_is_being_worked_on_is_kept(web: FlaskClient, db: Db, blobs: LocalBlobs, made: Settings, detector: detect.Detector) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    worker = Pipeline(open_stores(made.model_copy(update={"worker": settings.Worker(lease_s=2, hard_limit_s=600)}), app="test", db=db, blobs=blobs), detector, "worker-a")
    (taken,) = worker.take().claim.images
    wait_until(lambda: db.images.count_documents({"_id": said["images"][0]["id"], "work.lease_until": {"$gt": taken["work"]["lease_until"]}}) == 1)
    worker.stop()


def test_a_batch_deleted_under_a_worker_stays_deleted(web: FlaskClient, db: Db, pipeline: Pipeline) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    taken = pipeline.take()
    deletion.begin_delete(db, said["batch_id"])
    pipeline.work(taken)
    assert web.get(said["links"]["self"]).status_code == 404
    assert db.images.count_documents({"status": {"$in": ["done", "failed"]}}) == 0


def test_when_the_time_is_over_no_further_claim_is_begun(web: FlaskClient, db: Db, pipeline: Pipeline) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(40)], "augmentations": [], "detect": False})
    rung: list[None] = []
    assert pipeline.work_off(lambda: rung.append(None), 0)  # a worker that was told to let go
    assert count(db) == {"done": 32, "queued": 8}
    assert rung == [None]  # the claim was full: another worker is called
    assert not pipeline.work_off(lambda: None, 600)
    assert count(db) == {"done": 40}


def test_a_claim_taken_ahead_goes_back_at_once_when_the_work_is_broken_off(
    web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(40)], "augmentations": [], "detect": False})

    finish, calls = results.finish, itertools.count(1)

    def over(*args: Any) -> set[str]:
        if next(calls) == 4:  # of the first claim's last group, when the next claim has been taken
            raise SoftTimeLimitExceeded
        return finish(*args)

    monkeypatch.setattr(results, "finish", over)
    with pytest.raises(SoftTimeLimitExceeded):
        pipeline.work_off(lambda: None, 60)
    assert count(db) == {"done": 24, "queued": 16}
    assert db.images.count_documents({"work.released_for": "not_begun"}) == 8
    assert claims.has_claimable(db)  # these need not wait
    assert db.images.count_documents({"work.owner": {"$ne": None}}) == 0


def test_missing_bytes_are_said_and_never_silently_done(web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    blobs.delete(spool_key(said["batch_id"]))
    run(pipeline)
    image = web.get(said["links"]["self"]).get_json()["images"][0]
    assert (image["status"], image["error"]["code"]) == ("failed", "bytes_missing")


def test_a_store_that_is_not_mounted_fails_no_image(web: FlaskClient, db: Db, pipeline: Pipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(web, db, [image_payload(make_image(1))])
    away = blobs_root.with_name("away")

    def unmount(*given: Any) -> claims.Claim:
        taken = claim(*given)
        blobs_root.rename(away)
        return taken

    claim = claims.claim
    with monkeypatch.context() as during:
        during.setattr(claims, "claim", unmount)  # it goes in the middle of a claim
        with pytest.raises(StoreAway):
            run(pipeline)
    assert db.images.count_documents({"status": "queued", "work.released_for": "blobs_unavailable", "work.faults": 0}) == 1
    with pytest.raises(StoreAway):
        run(pipeline)  # nothing is claimed any more
    away.rename(blobs_root)
    time.sleep(1.1)
    run(pipeline)
    assert count(db) == {"done": 1}


def test_a_full_disk_gives_images_back_and_counts_nothing(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    (blobs_root / "files").write_text("no folder can be made here")
    with pytest.raises(StoreAway):
        pipeline.take()
    image = db.images.find_one({"_id": said["images"][0]["id"]})
    assert image is not None
    assert (image["status"], image["work"]["releases"], image["error"]) == ("queued", 1, None)
    (blobs_root / "files").unlink()
    time.sleep(1.1)
    run(pipeline)
    assert web.get(said["links"]["self"]).get_json()["status"] == "done"


def test_pictures_are_augmented_where_the_model_computes(
    web: FlaskClient, db: Db, pipeline: Pipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, [image_payload(make_image(1, (64, 48)))])
    finish, asked = image_steps.finish, []

    def finished(prepared: PreparedImage, found: list[Any], names: list[str], device: str) -> PreparedImage:
        asked.append(device)
        return finish(prepared, found, names, "cpu")

    monkeypatch.setattr(detector, "device", "cuda")
    monkeypatch.setattr(image_steps, "finish", finished)
    run(pipeline)
    assert count(db) == {"done": 1}
    assert asked == ["cuda"]


@pytest.mark.slow
def test_what_goes_wrong_in_the_worker_itself_is_tried_alone_in_the_helper(
    web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [image_payload(make_image(number, (64, 48))) for number in range(3)])

    def fault(*_: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(image_steps, "finish", fault)  # in this process only
    pipeline.work(pipeline.take())
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 3
    time.sleep(1.1)
    run(pipeline)
    batch = web.get(said["links"]["self"]).get_json()
    assert batch["counts"]["done"] == 3
    assert all(len(image["augmentations"]) == 4 and image["model"]["name"] == "grocery" for image in batch["images"])


@pytest.mark.slow
def test_a_picture_that_keeps_going_wrong_alone_fails_in_the_end(
    web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    db.images.update_one({}, {"$set": {"work.solo": True}})

    def fault(*_: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(pipeline, "_done", fault)
    for faults in range(1, 4):
        pipeline.work(pipeline.take())
        assert db.images.count_documents({"work.faults": faults}) == 1
        db.images.update_one({}, [{"$set": {"work.not_before": "$created_at"}}])
    run(pipeline)
    assert web.get(said["links"]["self"]).get_json()["images"][0]["error"]["code"] == "decoder_crash"


def test_what_is_done_stays_done_when_the_time_is_over(
    web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(20)], "augmentations": [], "detect": False})
    prepare = image_steps.prepare
    begun: list[str] = []

    def over(picture: DecodedImage, **said: Any) -> Any:
        begun.append(said["image_id"])
        if len(begun) > 12:
            raise SoftTimeLimitExceeded
        return prepare(picture, **said)

    monkeypatch.setattr(image_steps, "prepare", over)
    with pytest.raises(SoftTimeLimitExceeded):
        pipeline.work(pipeline.take())
    assert count(db) == {"done": 8, "queued": 12}
    assert db.images.count_documents({"work.solo": True}) == 12  # one of them took the time
