"""Tests of the image pipeline with its real stages: store originals, decode, detect, write, finish, close, release."""

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
from shared.errors import StoreAway
from shared.ledger import claims, deletion, results
from shared.settings import Settings
from shared.storage.blob_keys import spool_key, variant_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, make_pipeline, run, upload
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.vision import image_steps
from worker.vision.detection import detect
from worker.vision.image_steps import PreparedImage
from worker.vision.imaging import DecodedImage

pytestmark = pytest.mark.slow


def test_a_batch_of_valid_and_broken_images_ends_partial_with_a_code_for_each_failure(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs
) -> None:
    good, png = make_image(1, (640, 480)), make_image(2, (80, 60), "PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT5\xaf\x06\x1e"
    body = {
        "images": [image_payload(good), image_payload(good[: len(good) // 2]), image_payload(png), image_payload(bomb)],
        "augmentations": ["rotate"],
    }
    batch = upload(web, db, body)
    run(pipeline)
    batch = web.get(batch["links"]["self"]).get_json()
    assert batch["status"] == "partial"
    assert batch["finished_at"]
    assert [image["status"] for image in batch["images"]] == ["done", "failed", "done", "failed"]
    first, cut, rendered, refused = batch["images"]
    assert (first["width"], first["height"], first["model"]["name"]) == (640, 480, "grocery")
    assert [augmentation["name"] for augmentation in first["augmentations"]] == ["rotate"]
    assert cut["error"]["code"] == "truncated"
    assert refused["error"]["code"] == "too_many_pixels"
    for path in (
        f"/uploads/{first['id']}/thumb.jpg",
        f"/uploads/{first['id']}/boxes.jpg",
        f"/uploads/{first['id']}/rotate.jpg",
        rendered["file_path"],
    ):
        response = web.get(path)
        assert (response.status_code, response.data[:3]) == (200, b"\xff\xd8\xff")
    assert web.get(f"/uploads/{rendered['id']}.png").data == png
    broken = web.get(f"/uploads/{cut['id']}.jpg")
    assert (broken.data, broken.headers["Content-Disposition"][:10]) == (good[: len(good) // 2], "attachment")
    assert web.get(f"/uploads/{cut['id']}/thumb.jpg").get_json(force=True)["code"] == "image_failed"
    assert web.get(f"/uploads/{first['id']}/shear.jpg").status_code == 404


@pytest.mark.slow
def test_a_worker_that_lost_its_lease_overwrites_nothing(
    web: FlaskClient, db: Db, blobs: LocalBlobs, worker_settings: Settings, detector: detect.Detector
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    late = make_pipeline(
        worker_settings.model_copy(
            update={"worker": settings.Worker(lease_s=1).model_copy(update={"hard_limit_s": 0.1})}
        ),
        db,
        blobs,
        detector,
        "worker-a",
    )
    lost = late.claim_next()
    # The first worker does not renew the lease, because the hard limit has passed.
    wait_until(lambda: claims.expire_leases(db) == 1)
    other = make_pipeline(worker_settings, db, blobs, detector, "worker-b")
    run(other)
    other.stop()
    before = db.images.find_one({"_id": batch["images"][0]["id"]})
    assert before is not None
    assert (before["status"], before["work"]["fence"]) == ("done", 2)
    late.process(lost)
    late.stop()
    assert db.images.find_one({"_id": before["_id"]}) == before
    assert blobs.stat(variant_key(before["_id"], 2, "thumb")) is not None


def test_the_lease_of_a_claim_that_is_being_processed_is_renewed(
    web: FlaskClient, db: Db, blobs: LocalBlobs, worker_settings: Settings, detector: detect.Detector
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    worker = make_pipeline(
        worker_settings.model_copy(update={"worker": settings.Worker(lease_s=2, hard_limit_s=600)}),
        db,
        blobs,
        detector,
        "worker-a",
    )
    (image,) = worker.claim_next().claim.images
    wait_until(
        lambda: (
            db.images.count_documents(
                {"_id": batch["images"][0]["id"], "work.lease_until": {"$gt": image["work"]["lease_until"]}}
            )
            == 1
        )
    )
    worker.stop()


def test_a_batch_deleted_while_a_worker_processes_it_stays_deleted(
    web: FlaskClient, db: Db, pipeline: ImagePipeline
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    claim = pipeline.claim_next()
    deletion.begin_delete(db, batch["batch_id"], None)
    pipeline.process(claim)
    assert web.get(batch["links"]["self"]).status_code == 404
    assert db.images.count_documents({"status": {"$in": ["done", "failed"]}}) == 0


def test_bytes_that_were_deleted_with_their_batch_after_the_claim_are_not_reported_missing(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    claim = claims.claim

    def claim_and_delete(*args: Any, **kwargs: Any) -> claims.Claim:
        claimed = claim(*args, **kwargs)
        assert web.delete(batch["links"]["self"]).status_code == 204
        return claimed

    monkeypatch.setattr(claims, "claim", claim_and_delete)
    pipeline.process(pipeline.claim_next())
    assert [record.getMessage() for record in caplog.records if record.name == "shelfsight.error"] == []
    assert count(db) == {"deleting": 1}


def test_when_the_time_is_over_no_further_claim_is_started(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (16, 16))) for number in range(40)],
            "augmentations": [],
            "detect": False,
        },
    )
    wakeups: list[None] = []
    assert pipeline.run(lambda: wakeups.append(None), 0)  # with 0 seconds, the time is over at once
    assert count(db) == {"done": 32, "queued": 8}
    assert wakeups == [None]  # because the claim was full, a wakeup is published for another worker
    assert not pipeline.run(lambda: None, 600)
    assert count(db) == {"done": 40}


def test_claims_are_bounded_by_bytes_and_the_next_one_is_loaded_when_the_bytes_of_the_previous_one_are_dropped(
    web: FlaskClient, db: Db, worker_settings: Settings, blobs: LocalBlobs, detector: detect.Detector
) -> None:
    images = [make_image(number, (64, 48)) for number in range(10)]
    worker = worker_settings.worker.model_copy(update={"claim_bytes": sum(map(len, images[:9]))})
    pipeline = make_pipeline(worker_settings.model_copy(update={"worker": worker}), db, blobs, detector, "worker-a")
    upload(web, db, {"images": [image_payload(image) for image in images], "augmentations": [], "detect": False})
    claimed = pipeline.claim_next()
    assert (len(claimed.claim.images), claimed.claim.full) == (9, True)
    lost = claimed.groups[1][0]
    pipeline._leases.drop([claims.LEASES.lease(lost.image)])
    held: list[int] = []
    pipeline.process(claimed, lambda: held.extend(len(loaded.data) for group in claimed.groups for loaded in group))
    pipeline.stop()
    assert held == [0] * 9


def test_a_claim_taken_ahead_is_released_at_once_when_processing_is_aborted(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (16, 16))) for number in range(40)],
            "augmentations": [],
            "detect": False,
        },
    )

    finish, calls = results.finish, itertools.count(1)

    def exceed_time_limit(*args: Any) -> set[str]:
        if next(calls) == 4:  # while the last group of the first claim is stored, the next claim has already been taken
            raise SoftTimeLimitExceeded
        return finish(*args)

    monkeypatch.setattr(results, "finish", exceed_time_limit)
    with pytest.raises(SoftTimeLimitExceeded):
        pipeline.run(lambda: None, 60)
    assert count(db) == {"done": 24, "queued": 16}
    assert db.images.count_documents({"work.released_for": "not_begun"}) == 8
    assert claims.has_claimable(db)  # the images were released without a delay
    assert db.images.count_documents({"work.owner": {"$ne": None}}) == 0


def test_missing_bytes_fail_the_image(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, caplog: pytest.LogCaptureFixture
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    blobs.delete(spool_key(batch["batch_id"]))
    run(pipeline)
    image = web.get(batch["links"]["self"]).get_json()["images"][0]
    assert (image["status"], image["error"]["code"]) == ("failed", "bytes_missing")
    assert "the stored bytes of an accepted image are missing" in caplog.text


def test_a_store_that_is_not_mounted_fails_no_image(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, [image_payload(make_image(1))])
    away = blobs_root.with_name("away")

    def unmount(*args: Any, **kwargs: Any) -> claims.Claim:
        claimed = claim(*args, **kwargs)
        blobs_root.rename(away)
        return claimed

    claim = claims.claim
    with monkeypatch.context() as patch:
        patch.setattr(claims, "claim", unmount)  # the blob store is unmounted directly after the claim
        with pytest.raises(StoreAway):
            run(pipeline)
    assert (
        db.images.count_documents({"status": "queued", "work.released_for": "blobs_unavailable", "work.faults": 0}) == 1
    )
    with pytest.raises(StoreAway):
        run(pipeline)  # no image can be claimed while the blob store is missing
    away.rename(blobs_root)
    time.sleep(1.1)
    run(pipeline)
    assert count(db) == {"done": 1}


def test_a_full_disk_releases_images_and_counts_no_fault(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    (blobs_root / "files").write_text("a file instead of a folder")
    with pytest.raises(StoreAway):
        pipeline.claim_next()
    image = db.images.find_one({"_id": batch["images"][0]["id"]})
    assert image is not None
    assert (image["status"], image["work"]["releases"], image["error"]) == ("queued", 1, None)
    (blobs_root / "files").unlink()
    time.sleep(1.1)
    run(pipeline)
    assert web.get(batch["links"]["self"]).get_json()["status"] == "done"


def test_images_are_augmented_on_the_device_of_the_model(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, [image_payload(make_image(1, (64, 48)))])
    finish, devices = image_steps.finish, []

    def record_device(prepared: PreparedImage, detections: list[Any], names: list[str], device: str) -> PreparedImage:
        devices.append(device)
        return finish(prepared, detections, names, "cpu")

    monkeypatch.setattr(detector, "device", "cuda")
    monkeypatch.setattr(image_steps, "finish", record_device)
    run(pipeline)
    assert count(db) == {"done": 1}
    assert devices == ["cuda"]


@pytest.mark.slow
def test_images_of_a_group_that_failed_in_the_worker_are_tried_alone_in_the_sandbox(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload(web, db, [image_payload(make_image(number, (64, 48))) for number in range(3)])

    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(image_steps, "finish", fail)  # replaced only in this process, not in the sandbox child
    pipeline.process(pipeline.claim_next())
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 3
    time.sleep(1.1)
    run(pipeline)
    batch = web.get(batch["links"]["self"]).get_json()
    assert batch["counts"]["done"] == 3
    assert all(len(image["augmentations"]) == 4 and image["model"]["name"] == "grocery" for image in batch["images"])


@pytest.mark.slow
def test_an_image_that_fails_alone_three_times_ends_as_decoder_crash(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    db.images.update_one({}, {"$set": {"work.solo": True}})

    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(pipeline._group_writer, "_success", fail)
    for faults in range(1, 4):
        pipeline.process(pipeline.claim_next())
        assert db.images.count_documents({"work.faults": faults}) == 1
        db.images.update_one({}, [{"$set": {"work.not_before": "$created_at"}}])
    run(pipeline)
    assert web.get(batch["links"]["self"]).get_json()["images"][0]["error"]["code"] == "decoder_crash"


def test_what_is_done_stays_done_when_the_time_is_over(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (16, 16))) for number in range(20)],
            "augmentations": [],
            "detect": False,
        },
    )
    prepare = image_steps.prepare
    started: list[str] = []

    def exceed_time_limit(image: DecodedImage, **kwargs: Any) -> Any:
        started.append(kwargs["image_id"])
        if len(started) > 12:
            raise SoftTimeLimitExceeded
        return prepare(image, **kwargs)

    monkeypatch.setattr(image_steps, "prepare", exceed_time_limit)
    with pytest.raises(SoftTimeLimitExceeded):
        pipeline.process(pipeline.claim_next())
    assert count(db) == {"done": 8, "queued": 12}
    # Each of the 12 images is tried alone next, because any of them may have used up the time.
    assert db.images.count_documents({"work.solo": True}) == 12
