"""What a file server that asks nobody finds of an image: all that is done, and nothing else."""

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
from tests.integration.worker.running import count, run, upload
from tests.support.ledger import expire_leases, utc_now
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import Pipeline
from worker.sweep.sweep import Sweep
from worker.vision.detection import detect

pytestmark = pytest.mark.slow


def live(blobs_root: Path, image_id: str) -> Path:
    """Name the link through which a file server finds what was made of an image."""
    return blobs_root / image_prefix(image_id) / LIVE


def served(blobs_root: Path, image_id: str, name: str) -> bytes | None:
    """Read what a file server would: ``thumb.jpg``, or an original by its ending; None where it would ask the web."""
    wanted = f"../../{image_id[32:]}.{name}" if "." not in name else name
    try:
        return (live(blobs_root, image_id) / wanted).read_bytes()
    except FileNotFoundError:
        return None


def test_a_file_server_finds_what_is_done_and_nothing_of_what_failed(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, blobs_root: Path
) -> None:
    good, png = make_image(1), make_image(2, (80, 60), "PNG")
    said = upload(web, db, {"images": [image_payload(good), image_payload(good[: len(good) // 2]), image_payload(png)], "augmentations": ["rotate"]})
    done, failed, rendered = (image["id"] for image in said["images"])
    taken = pipeline.take()
    blobs.write(variant_key(failed, 1, "thumb"), [b"so that a link would lead somewhere"])
    assert [served(blobs_root, image, "jpg") for image in (done, failed)] == [None, None]  # kept, and not done yet
    pipeline.work(taken)
    for name in ("thumb", "boxes", "rotate"):
        assert served(blobs_root, done, f"{name}.jpg") == web.get(f"/uploads/{done}/{name}.jpg").data
    assert served(blobs_root, rendered, "rendition.jpg") == web.get(f"/uploads/{rendered}.jpg").data
    assert (served(blobs_root, done, "jpg"), served(blobs_root, rendered, "png")) == (good, png)
    assert web.get(f"/uploads/{failed}.jpg").status_code == 200
    assert served(blobs_root, failed, "jpg") is None


@pytest.mark.parametrize("trouble", [StoreAway("away"), RuntimeError("a fault of ours")], ids=["store", "fault"])
def test_what_cannot_be_published_is_done_all_the_same(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    images = [image_payload(make_image(number, (16, 16))) for number in range(10)]  # more than one group
    said = upload(web, db, {"images": images, "augmentations": [], "detect": False})

    def fail(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(LocalBlobs, "publish", fail)
    pipeline.work(pipeline.take())
    assert db.images.count_documents({"status": "done", "work.releases": 0, "work.fence": 1}) == 10
    image = said["images"][0]["id"]
    assert not live(blobs_root, image).is_symlink()
    assert web.get(f"/uploads/{image}/thumb.jpg").status_code == 200


def test_a_worker_that_lost_its_claim_points_no_link_at_its_files(
    web: FlaskClient, db: Db, blobs: LocalBlobs, made: Settings, detector: detect.Detector, blobs_root: Path
) -> None:
    unhurried = made.model_copy(update={"worker": settings.Worker(lease_s=300)})  # it is not told in time that it lost
    image = upload(web, db, [image_payload(make_image(1))])["images"][0]["id"]
    lines = [Pipeline(open_stores(unhurried, app="test", db=db, blobs=blobs), detector, owner) for owner in ("worker-a", "worker-b")]
    try:
        late = lines[0].take()
        expire_leases(db, [image])
        assert claims.expire_leases(db) == 1
        heir = lines[1].take()
        lines[0].work(late)
        assert blobs.stat(variant_key(image, 1, "thumb")) is not None  # it wrote its files, and that is all
        assert not live(blobs_root, image).is_symlink()
        lines[1].work(heir)
        assert str(live(blobs_root, image).readlink()) == "2"
        lines[0].work(late)
        assert str(live(blobs_root, image).readlink()) == "2"
    finally:
        for line in lines:
            line.stop()


def test_a_link_that_a_crash_left_out_is_made_by_the_sweep(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings, blobs_root: Path
) -> None:
    good = make_image(1, (640, 480))  # so large that its half still says so: all three are one group
    said = upload(web, db, [image_payload(good), image_payload(make_image(2)), image_payload(good[: len(good) // 2])])
    missing, wrong, failed = (image["id"] for image in said["images"])
    blobs.write(variant_key(failed, 1, "thumb"), [b"so that a link would lead somewhere"])

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
    live(blobs_root, wrong).symlink_to("7")
    Sweep(open_stores(made, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(said["batch_id"])) is None
    assert [str(live(blobs_root, image).readlink()) for image in (missing, wrong)] == ["1", "1"]
    assert served(blobs_root, missing, "thumb.jpg") == web.get(f"/uploads/{missing}/thumb.jpg").data
    assert served(blobs_root, failed, "jpg") is None


def test_a_spool_goes_although_nothing_can_be_published(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [image_payload(make_image(1))])

    def fail(*_: object) -> None:
        raise StoreAway("no links here")

    monkeypatch.setattr(LocalBlobs, "publish", fail)
    run(pipeline)
    Sweep(open_stores(made, app="test", db=db, blobs=blobs)).tick()
    assert blobs.stat(spool_key(said["batch_id"])) is None


def test_a_deletion_ends_what_a_file_server_shows_before_it_is_answered(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    image, folder = said["images"][0]["id"], batch_prefix(said["batch_id"])
    run(pipeline)
    assert served(blobs_root, image, "jpg") == make_image(1)
    remove, order = LocalBlobs.delete_tree, []

    def seen(self: LocalBlobs, prefix: str) -> None:
        order.append((prefix, db.batches.count_documents({"deleting": True})))
        assert served(blobs_root, image, "jpg") == make_image(1)  # the mark comes first: a moment longer than the web shows it
        remove(self, prefix)

    monkeypatch.setattr(LocalBlobs, "delete_tree", seen)
    assert web.delete(said["links"]["self"]).status_code == 204
    assert order == [(folder, 1)]
    assert not (blobs_root / folder).exists()
    assert [path.name for path in blobs_root.rglob("*") if path.is_file()] == [IDENTITY]
    blobs.publish(image_prefix(image), "1")  # a worker that froze between its result and its link
    assert not (blobs_root / folder).exists()


def test_a_deletion_that_was_broken_off_is_ended_by_the_sweep(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings, blobs_root: Path
) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    image, folder = said["images"][0]["id"], batch_prefix(said["batch_id"])
    run(pipeline)
    deletion.begin_delete(db, said["batch_id"])  # and here the web was killed
    assert served(blobs_root, image, "jpg") == make_image(1)
    sweep = Sweep(open_stores(made, app="test", db=db, blobs=blobs))
    sweep.tick()
    assert not (blobs_root / folder).exists()
    assert db.batches.count_documents({"deleting": True, "uncleared": True}) == 0
    blobs.write(variant_key(image, 1, "thumb"), [b"a frozen worker's"])
    db.batches.update_one({}, {"$set": {"deleting_at": utc_now() - timedelta(hours=1)}})
    time.sleep(0.02)
    sweep.tick()
    assert not (blobs_root / folder).exists()
    assert db.batches.count_documents({}) == 0
