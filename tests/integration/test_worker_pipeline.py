"""The way of one claim through the real steps: keep, look, write, finish, close, give back."""

import itertools
import signal
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask.testing import FlaskClient

from shared import faultpoints, settings
from shared.blobs import LIVE, TEMP, LocalBlobs
from shared.broker import Bell
from shared.errors import StoreAway
from shared.layout import batch_prefix, image_prefix, original_key, spool_key, variant_key
from shared.ledger import claims, deletion, results
from shared.mongo import Db
from shared.settings import Settings
from tests.integration.http import client, item, picture, post
from tests.integration.ledger_kit import end_lease, now
from worker import isolate
from worker.pipeline import Pipeline
from worker.sweep import Sweep
from worker.vision import detect, look
from worker.vision.errors import VisionError
from worker.vision.imaging import Picture


@pytest.fixture(scope="session")
def detector() -> detect.Detector:
    return detect.load()


@pytest.fixture
def made(mongo: settings.Mongo, blobs_root: Path) -> Settings:
    return Settings(
        mongo=mongo,
        blobs=settings.Blobs(root=blobs_root, min_free_bytes=0),
        redis=settings.Redis(url="redis://127.0.0.1:1/0"),
        worker=settings.Worker(lease_s=2, hard_limit_s=1, child_timeout_s=20),
        sweep=settings.Sweep(clean_interval_s=0.01, orphan_age_s=0.01),
    )


@pytest.fixture
def web(db: Db, mongo: settings.Mongo, blobs_root: Path) -> FlaskClient:
    return client(mongo, blobs_root)


@pytest.fixture
def blobs(blobs_root: Path) -> LocalBlobs:
    return LocalBlobs(blobs_root)


@pytest.fixture
def pipeline(made: Settings, db: Db, blobs: LocalBlobs, detector: detect.Detector) -> Iterator[Pipeline]:
    line = Pipeline(made, db, blobs, detector, "worker-a")
    yield line
    line.stop()


def upload(web: FlaskClient, db: Db, body: Any) -> Any:
    """Post a batch and wait until its store has a turn, which a thread of the web gives it after the answer."""
    said = post(web, body).get_json()
    until = time.monotonic() + 10
    while db.turns.find_one({"pending": True}) is None:
        assert time.monotonic() < until
        time.sleep(0.002)
    return said


def run(pipeline: Pipeline) -> None:
    pipeline.work_off(lambda: None, 60)


def test_a_batch_of_good_and_broken_pictures_ends_as_it_should(web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs) -> None:
    good, png = picture(1, (640, 480)), picture(2, (80, 60), "PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT5\xaf\x06\x1e"
    body = {"images": [item(good), item(good[: len(good) // 2]), item(png), item(bomb)], "augmentations": ["rotate"]}
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


def test_the_sweep_deletes_a_spool_when_every_original_stands_and_mends_one_that_does_not(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings
) -> None:
    said = upload(web, db, [item(picture(1)), item(picture(2))])
    run(pipeline)
    spoiled = said["images"][0]["id"]
    blobs.write(original_key(spoiled, "jpg"), [b"x" * len(picture(1))])
    Sweep(made, db, blobs, Bell(made)).tick()
    assert blobs.stat(spool_key(said["batch_id"])) is None
    assert web.get(said["images"][0]["file_path"]).data == picture(1)


def test_the_sweep_keeps_a_spool_that_it_cannot_vouch_for_and_goes_on_with_others(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings
) -> None:
    bad = upload(web, db, [item(picture(1))])
    good = upload(web, db, [item(picture(2))])
    lost = upload(web, db, [item(picture(3))])
    blobs.write(spool_key(lost["batch_id"]), [b"nothing of it"])
    run(pipeline)
    assert web.get(lost["links"]["self"]).get_json()["images"][0]["error"]["code"] == "bytes_missing"
    blobs.write(original_key(bad["images"][0]["id"], "jpg"), [b"spoiled"])
    blobs.write(spool_key(bad["batch_id"]), [b"spoiled too"])
    sweep = Sweep(made, db, blobs, Bell(made))
    for _ in range(2):
        sweep.tick()
        time.sleep(0.02)
    assert blobs.stat(spool_key(bad["batch_id"])) is not None
    assert blobs.stat(spool_key(good["batch_id"])) is None
    assert db.batches.count_documents({"spooled": True}) == 0  # not asked again for ever


def test_a_spool_of_no_batch_goes_after_its_tombstone_stands(db: Db, blobs: LocalBlobs, made: Settings) -> None:
    name = "0" * 32
    blobs.write(spool_key(name), [b"left over"])
    time.sleep(0.05)
    Sweep(made, db, blobs, Bell(made)).tick()
    assert blobs.stat(spool_key(name)) is None
    assert db.ledger.find_one({"_id": name})["state"] == "abandoned"  # type: ignore[index]


@pytest.mark.slow
def test_a_worker_that_lost_its_lease_overwrites_nothing(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings, detector: detect.Detector
) -> None:
    said = upload(web, db, [item(picture(1))])
    late = pipeline.take()
    time.sleep(3.5)  # its hard limit is over, so the lease was not renewed
    assert claims.expire_leases(db) == 1
    other = Pipeline(made, db, blobs, detector, "worker-b")
    run(other)
    other.stop()
    before = db.images.find_one({"_id": said["images"][0]["id"]})
    assert before is not None
    assert (before["status"], before["work"]["fence"]) == ("done", 2)
    pipeline.work(late)
    assert db.images.find_one({"_id": before["_id"]}) == before
    assert blobs.stat(variant_key(before["_id"], 2, "thumb")) is not None


def test_a_batch_deleted_under_a_worker_stays_deleted(web: FlaskClient, db: Db, pipeline: Pipeline) -> None:
    said = upload(web, db, [item(picture(1))])
    taken = pipeline.take()
    deletion.begin_delete(db, said["batch_id"])
    pipeline.work(taken)
    assert web.get(said["links"]["self"]).status_code == 404
    assert db.images.count_documents({"status": {"$in": ["done", "failed"]}}) == 0


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
    good, png = picture(1), picture(2, (80, 60), "PNG")
    said = upload(web, db, {"images": [item(good), item(good[: len(good) // 2]), item(png)], "augmentations": ["rotate"]})
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
    images = [item(picture(number, (16, 16))) for number in range(10)]  # more than one group
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
    image = upload(web, db, [item(picture(1))])["images"][0]["id"]
    lines = [Pipeline(unhurried, db, blobs, detector, owner) for owner in ("worker-a", "worker-b")]
    try:
        late = lines[0].take()
        end_lease(db, [image])
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
    good = picture(1)
    said = upload(web, db, [item(good), item(picture(2)), item(good[: len(good) // 2])])
    missing, wrong, failed = (image["id"] for image in said["images"])
    blobs.write(variant_key(failed, 1, "thumb"), [b"so that a link would lead somewhere"])

    def crash(point: str) -> None:
        if point == "6-finished":
            raise RuntimeError

    faultpoints.install(crash)
    try:
        run(pipeline)
    finally:
        faultpoints.install(None)
    assert count(db) == {"done": 2, "failed": 1}
    assert served(blobs_root, missing, "thumb.jpg") is None
    live(blobs_root, wrong).symlink_to("7")
    Sweep(made, db, blobs, Bell(made)).tick()
    assert blobs.stat(spool_key(said["batch_id"])) is None
    assert [str(live(blobs_root, image).readlink()) for image in (missing, wrong)] == ["1", "1"]
    assert served(blobs_root, missing, "thumb.jpg") == web.get(f"/uploads/{missing}/thumb.jpg").data
    assert served(blobs_root, failed, "jpg") is None


def test_a_spool_goes_although_nothing_can_be_published(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [item(picture(1))])

    def fail(*_: object) -> None:
        raise StoreAway("no links here")

    monkeypatch.setattr(LocalBlobs, "publish", fail)
    run(pipeline)
    Sweep(made, db, blobs, Bell(made)).tick()
    assert blobs.stat(spool_key(said["batch_id"])) is None


def test_a_deletion_ends_what_a_file_server_shows_before_it_is_answered(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [item(picture(1))])
    image, folder = said["images"][0]["id"], batch_prefix(said["batch_id"])
    run(pipeline)
    assert served(blobs_root, image, "jpg") == picture(1)
    remove, order = LocalBlobs.delete_tree, []

    def seen(self: LocalBlobs, prefix: str) -> None:
        order.append((prefix, db.batches.count_documents({"deleting": True})))
        assert served(blobs_root, image, "jpg") == picture(1)  # the mark comes first: a moment longer than the web shows it
        remove(self, prefix)

    monkeypatch.setattr(LocalBlobs, "delete_tree", seen)
    assert web.delete(said["links"]["self"]).status_code == 204
    assert order == [(folder, 1)]
    assert not (blobs_root / folder).exists()
    assert [path for path in blobs_root.rglob("*") if path.is_file()] == []
    blobs.publish(image_prefix(image), "1")  # a worker that froze between its result and its link
    assert not (blobs_root / folder).exists()


def test_a_deletion_that_was_broken_off_is_ended_by_the_sweep(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs, made: Settings, blobs_root: Path
) -> None:
    said = upload(web, db, [item(picture(1))])
    image, folder = said["images"][0]["id"], batch_prefix(said["batch_id"])
    run(pipeline)
    deletion.begin_delete(db, said["batch_id"])  # and here the web was killed
    assert served(blobs_root, image, "jpg") == picture(1)
    sweep = Sweep(made, db, blobs, Bell(made))
    sweep.tick()
    assert not (blobs_root / folder).exists()
    assert db.batches.count_documents({"deleting": True, "uncleared": True}) == 0
    blobs.write(variant_key(image, 1, "thumb"), [b"a frozen worker's"])
    db.batches.update_one({}, {"$set": {"deleting_at": now() - timedelta(hours=1)}})
    time.sleep(0.02)
    sweep.tick()
    assert not (blobs_root / folder).exists()
    assert db.batches.count_documents({}) == 0


def test_what_a_broken_off_removal_left_is_removed(db: Db, blobs: LocalBlobs, made: Settings, blobs_root: Path) -> None:
    blobs.write_many([(f"{TEMP}/tree/0/1/thumb", [b"1"]), (f"{TEMP}/being-written", [b"2"])])
    Sweep(made, db, blobs, Bell(made)).tick()
    assert [path.name for path in (blobs_root / TEMP).iterdir()] == ["being-written"]


def test_when_the_time_is_over_no_further_claim_is_begun(web: FlaskClient, db: Db, pipeline: Pipeline) -> None:
    upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(40)], "augmentations": [], "detect": False})
    rung: list[None] = []
    assert pipeline.work_off(lambda: rung.append(None), 0)  # a worker that was told to let go
    assert count(db) == {"done": 32, "queued": 8}
    assert rung == [None]  # the claim was full: another worker is called
    assert not pipeline.work_off(lambda: None, 60)
    assert count(db) == {"done": 40}


def test_a_claim_taken_ahead_goes_back_at_once_when_the_work_is_broken_off(
    web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(40)], "augmentations": [], "detect": False})

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


def count(db: Db) -> dict[str, int]:
    groups = db.images.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
    return {group["_id"]: group["n"] for group in groups}


def test_missing_bytes_are_said_and_never_silently_done(web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs) -> None:
    said = upload(web, db, [item(picture(1))])
    blobs.delete(spool_key(said["batch_id"]))
    run(pipeline)
    image = web.get(said["links"]["self"]).get_json()["images"][0]
    assert (image["status"], image["error"]["code"]) == ("failed", "bytes_missing")


def test_a_full_disk_gives_images_back_and_counts_nothing(
    web: FlaskClient, db: Db, pipeline: Pipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [item(picture(1))])
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


@pytest.mark.parametrize(
    ("end", "by_kernel", "expected", "starts"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", False, "decoder_crash", 3),
        ("raise ValueError", False, "decoder_crash", 3),
        ("time.sleep(60)", False, "decoder_crash", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", False, "helper_killed", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", False, "helper_killed", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", True, "out_of_memory", 1),
        ("sys.exit(71)", False, "out_of_memory", 1),
    ],
)
def test_how_a_helper_died_says_whether_its_picture_is_to_blame(
    monkeypatch: pytest.MonkeyPatch, end: str, expected: str, starts: int, *, by_kernel: bool
) -> None:
    begun: list[int] = []
    kills = itertools.count(7) if by_kernel else itertools.repeat(7)

    def command(memory_bytes: int) -> list[str]:
        begun.append(memory_bytes)
        return [sys.executable, "-c", f"import os, signal, sys, time; sys.stdin.buffer.read(8); {end}"]

    monkeypatch.setattr(isolate, "_command", command)
    monkeypatch.setattr(isolate, "_oom_kills", lambda: next(kills))
    helper = isolate.Isolate(2 * 1024**3, 1)
    with pytest.raises((VisionError, isolate.HelperKilled)) as caught:
        helper.do(wanted(picture()))
    helper.close()
    assert getattr(caught.value, "code", None) == expected
    assert len(begun) == starts


def wanted(data: bytes, name: str = "0" * 36) -> isolate.Look:
    return isolate.Look(data, name, None, 50_000_000)


def test_an_answer_that_nobody_waited_for_never_becomes_another_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = isolate.Isolate(2 * 1024**3, 30)
    receive = isolate.receive

    def interrupted(_pipe: object) -> bytes:
        raise SoftTimeLimitExceeded

    try:
        assert helper.do(wanted(picture(1), "1" * 36)).fields["width"] == 64
        monkeypatch.setattr(isolate, "receive", interrupted)
        with pytest.raises(SoftTimeLimitExceeded):
            helper.do(wanted(picture(2, (80, 40)), "2" * 36))
        monkeypatch.setattr(isolate, "receive", receive)
        third = helper.do(wanted(picture(3, (32, 24)), "3" * 36))
        assert (third.image_id, third.fields["width"]) == ("3" * 36, 32)
    finally:
        helper.close()


def test_a_frozen_helper_is_waited_for_no_longer_than_its_time() -> None:
    helper = isolate.Isolate(2 * 1024**3, 2)
    try:
        helper.do(wanted(picture(1)))
        assert helper._helper is not None
        helper._helper.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert helper.do(wanted(picture(2, (900, 900), "BMP"))).fields["width"] == 900  # more than a pipe holds
        assert time.monotonic() - began < 20
    finally:
        helper.close()


@pytest.mark.slow
def test_a_strip_longer_than_a_jpeg_can_be_is_refused_by_its_size() -> None:
    helper = isolate.Isolate(2 * 1024**3, 30)
    try:
        with pytest.raises(VisionError) as caught:
            helper.do(wanted(picture(1, (65_501, 8), "PNG")))
        assert caught.value.code == "too_many_pixels"
        prepared = helper.do(wanted(picture(1, (65_500, 8), "PNG")))
        assert helper.do(isolate.Finish(prepared, [], ["rotate"])).files.keys() == {"thumb", "rendition", "boxes", "rotate"}
    finally:
        helper.close()


@pytest.mark.slow
def test_what_goes_wrong_in_the_worker_itself_is_tried_alone_in_the_helper(
    web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, [item(picture(number, (64, 48))) for number in range(3)])

    def fault(*_: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(look, "finish", fault)  # in this process only
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
    said = upload(web, db, [item(picture(1))])
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
    upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(20)], "augmentations": [], "detect": False})
    prepare = look.prepare
    begun: list[str] = []

    def over(picture: Picture, **said: Any) -> Any:
        begun.append(said["image_id"])
        if len(begun) > 12:
            raise SoftTimeLimitExceeded
        return prepare(picture, **said)

    monkeypatch.setattr(look, "prepare", over)
    with pytest.raises(SoftTimeLimitExceeded):
        pipeline.work(pipeline.take())
    assert count(db) == {"done": 8, "queued": 12}
    assert db.images.count_documents({"work.solo": True}) == 12  # one of them took the time


@pytest.mark.slow
def test_a_picture_that_takes_too_much_memory_ends_alone() -> None:
    helper = isolate.Isolate(250 * 1024**2, 30)
    try:
        with pytest.raises(VisionError) as caught:
            helper.do(wanted(picture(1, (7000, 6000), "PNG")))
        assert caught.value.code == "out_of_memory"
        assert helper.do(wanted(picture(1))).fields["width"] == 64
    finally:
        helper.close()
