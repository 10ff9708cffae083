"""Tests that a plain file server finds the files of done images, and no other files."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import failpoints, settings
from shared.bootstrap import open_stores
from shared.errors import StoreAway
from shared.ledger import claims, deletion
from shared.settings import Settings
from shared.storage.blob_keys import IDENTITY, batch_prefix, image_prefix, spool_key, variant_key
from shared.storage.local_blobs import LIVE, LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, make_pipeline, run, upload
from tests.support.ledger import expire_leases, finish_earlier, utc_now
from tests.support.service_stack import wait_until
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep.sweep import Sweep
from worker.vision.detection import detect

pytestmark = pytest.mark.slow


def live_link(blobs_root: Path, image_id: str) -> Path:
    """Return the link through which a file server finds the variants of an image."""
    return blobs_root / image_prefix(image_id) / LIVE


def served(blobs_root: Path, image_id: str, name: str) -> bytes | None:
    """Return the file that a file server would send, or None if it would pass the request to the web process.

    :param name: the name of a variant, such as ``thumb.jpg``, or the extension of the original, such as ``png``.
    """
    path = f"../../{image_id[32:]}.{name}" if "." not in name else name
    try:
        return (live_link(blobs_root, image_id) / path).read_bytes()
    except FileNotFoundError:
        return None


def test_a_file_server_finds_the_files_of_done_images_and_none_of_failed_ones(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, blobs_root: Path
) -> None:
    good, png = make_image(1), make_image(2, (80, 60), "PNG")
    batch = upload(
        web,
        db,
        {
            "images": [image_payload(good), image_payload(good[: len(good) // 2]), image_payload(png)],
            "augmentations": ["rotate"],
        },
    )
    done, failed, rendered = (image["id"] for image in batch["images"])
    claim = pipeline.claim_next()
    blobs.write(variant_key(failed, 1, "thumb"), [b"so that a link would have a target"])
    assert [served(blobs_root, image, "jpg") for image in (done, failed)] == [
        None,
        None,
    ]  # the originals are already stored, but the images are not done yet
    pipeline.process(claim)
    for name in ("thumb", "boxes", "rotate"):
        assert served(blobs_root, done, f"{name}.jpg") == web.get(f"/uploads/{done}/{name}.jpg").data
    assert served(blobs_root, rendered, "rendition.jpg") == web.get(f"/uploads/{rendered}.jpg").data
    assert (served(blobs_root, done, "jpg"), served(blobs_root, rendered, "png")) == (good, png)
    assert web.get(f"/uploads/{failed}.jpg").status_code == 200
    assert served(blobs_root, failed, "jpg") is None


@pytest.mark.parametrize("error", [StoreAway("away"), RuntimeError("a bug")], ids=["store", "bug"])
def test_images_that_cannot_be_published_are_done_nevertheless(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    images = [image_payload(make_image(number, (16, 16))) for number in range(10)]  # more images than one group has
    batch = upload(web, db, {"images": images, "augmentations": [], "detect": False})

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(LocalBlobs, "publish", fail)
    pipeline.process(pipeline.claim_next())
    assert db.images.count_documents({"status": "done", "work.releases": 0, "work.fence": 1}) == 10
    image = batch["images"][0]["id"]
    assert not live_link(blobs_root, image).is_symlink()
    assert web.get(f"/uploads/{image}/thumb.jpg").status_code == 200


def test_a_worker_that_lost_its_claim_links_none_of_its_files(
    web: FlaskClient, db: Db, blobs: LocalBlobs, worker_settings: Settings, detector: detect.Detector, blobs_root: Path
) -> None:
    long_leases = worker_settings.model_copy(
        update={"worker": settings.Worker(lease_s=300)}
    )  # the lease is so long that no renewal detects its loss during the test
    image = upload(web, db, [image_payload(make_image(1))])["images"][0]["id"]
    pipelines = [make_pipeline(long_leases, db, blobs, detector, owner) for owner in ("worker-a", "worker-b")]
    try:
        lost = pipelines[0].claim_next()
        expire_leases(db, [image])
        assert claims.expire_leases(db) == 1
        heir = pipelines[1].claim_next()
        pipelines[0].process(lost)
        # The worker wrote its files, but did not create the link.
        assert blobs.stat(variant_key(image, 1, "thumb")) is not None
        assert not live_link(blobs_root, image).is_symlink()
        pipelines[1].process(heir)
        assert str(live_link(blobs_root, image).readlink()) == "2"
        pipelines[0].process(lost)
        assert str(live_link(blobs_root, image).readlink()) == "2"
    finally:
        for pipeline in pipelines:
            pipeline.stop()


@pytest.mark.usefixtures("without_settling")
def test_a_link_that_a_crash_left_out_is_made_by_the_sweep(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings, blobs_root: Path
) -> None:
    # The image is so large that half of its file still contains the header. So all three images are in one group.
    good = make_image(1, (640, 480))
    batch = upload(web, db, [image_payload(good), image_payload(make_image(2)), image_payload(good[: len(good) // 2])])
    missing, wrong, failed = (image["id"] for image in batch["images"])
    blobs.write(variant_key(failed, 1, "thumb"), [b"so that a link would have a target"])

    def crash(point: str) -> None:
        if point == "6-finished":
            raise RuntimeError

    failpoints.install(crash)
    try:
        run(pipeline)
    finally:
        failpoints.install(None)
    assert count(db) == {"done": 2, "failed": 1}
    assert served(blobs_root, missing, "thumb.jpg") is None
    live_link(blobs_root, wrong).symlink_to("7")
    finish_earlier(db, 60)
    Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(batch["batch_id"])) is None
    assert [str(live_link(blobs_root, image).readlink()) for image in (missing, wrong)] == ["1", "1"]
    assert served(blobs_root, missing, "thumb.jpg") == web.get(f"/uploads/{missing}/thumb.jpg").data
    assert served(blobs_root, failed, "jpg") is None


def test_a_spool_is_deleted_although_nothing_can_be_published(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])

    def fail(*_: object) -> None:
        raise StoreAway("no links")

    monkeypatch.setattr(LocalBlobs, "publish", fail)
    run(pipeline)
    wait_until(lambda: blobs.stat(spool_key(batch["batch_id"])) is None)


def test_a_deletion_removes_the_files_from_a_file_server_before_its_response(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    blobs: LocalBlobs,
    blobs_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    image, folder = batch["images"][0]["id"], batch_prefix(batch["batch_id"])
    run(pipeline)
    assert served(blobs_root, image, "jpg") == make_image(1)
    delete_tree, calls = LocalBlobs.delete_tree, []

    def record(self: LocalBlobs, prefix: str) -> None:
        calls.append((prefix, db.batches.count_documents({"deleting": True})))
        assert served(blobs_root, image, "jpg") == make_image(
            1
        )  # the batch was marked first, so a file server still serves a file that the web process no longer shows
        delete_tree(self, prefix)

    monkeypatch.setattr(LocalBlobs, "delete_tree", record)
    assert web.delete(batch["links"]["self"]).status_code == 204
    assert calls == [(folder, 1)]
    assert not (blobs_root / folder).exists()
    assert [path.name for path in blobs_root.rglob("*") if path.is_file()] == [IDENTITY]
    # A worker that froze after storing its result and before creating the link would do this.
    blobs.publish(image_prefix(image), "1")
    assert not (blobs_root / folder).exists()


def test_a_deletion_that_was_broken_off_is_ended_by_the_sweep(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, blobs: LocalBlobs, worker_settings: Settings, blobs_root: Path
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    image, folder = batch["images"][0]["id"], batch_prefix(batch["batch_id"])
    run(pipeline)
    deletion.begin_delete(db, batch["batch_id"], None)  # the files stay, as if the web process was killed at this point
    assert served(blobs_root, image, "jpg") == make_image(1)
    sweep = Sweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    sweep.tick()
    assert not (blobs_root / folder).exists()
    assert db.batches.count_documents({"deleting": True, "uncleared": True}) == 0
    blobs.write(variant_key(image, 1, "thumb"), [b"from a frozen worker"])
    db.batches.update_one({}, {"$set": {"deleting_at": utc_now() - timedelta(hours=1)}})
    time.sleep(0.02)
    sweep.tick()
    assert not (blobs_root / folder).exists()
    assert db.batches.count_documents({}) == 0
