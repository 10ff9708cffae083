"""The way of one claim through the real steps: keep, look, write, finish, close, give back."""

import itertools
import os
import signal
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask.testing import FlaskClient

from shared.blobs import LocalBlobs
from shared.errors import StoreAway
from shared.layout import spool_key, variant_key
from shared.ledger import claims, deletion, results
from shared.mongo import Db
from shared.settings import Settings
from tests.integration.http import item, picture
from tests.integration.worker.kit import count, run, upload
from worker import isolate
from worker.isolate import Finish
from worker.pipeline import Pipeline
from worker.vision import detect, imaging, look
from worker.vision.errors import VisionError
from worker.vision.imaging import Picture
from worker.vision.look import Prepared

pytestmark = pytest.mark.slow


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


def test_missing_bytes_are_said_and_never_silently_done(web: FlaskClient, db: Db, pipeline: Pipeline, blobs: LocalBlobs) -> None:
    said = upload(web, db, [item(picture(1))])
    blobs.delete(spool_key(said["batch_id"]))
    run(pipeline)
    image = web.get(said["links"]["self"]).get_json()["images"][0]
    assert (image["status"], image["error"]["code"]) == ("failed", "bytes_missing")


def test_a_store_that_is_not_mounted_fails_no_image(web: FlaskClient, db: Db, pipeline: Pipeline, blobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(web, db, [item(picture(1))])
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


def test_pictures_are_augmented_where_the_model_computes(
    web: FlaskClient, db: Db, pipeline: Pipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(web, db, [item(picture(1, (64, 48)))])
    finish, asked = look.finish, []

    def finished(prepared: Prepared, found: list[Any], names: list[str], device: str) -> Prepared:
        asked.append(device)
        return finish(prepared, found, names, "cpu")

    monkeypatch.setattr(detector, "device", "cuda")
    monkeypatch.setattr(look, "finish", finished)
    run(pipeline)
    assert count(db) == {"done": 1}
    assert asked == ["cuda"]


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


class Order:
    """What has begun, how often, and who waits for it: a wait that nobody ends fails the test."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.wrong: list[str] = []

    def begun(self, what: str) -> None:
        with self._changed:
            self._begun[what] += 1
            self._changed.notify_all()

    def wait(self, what: str, times: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._begun[what] >= times, 10):
                self.wrong.append(f"{what} has not begun")

    def not_yet(self, what: str) -> None:
        with self._changed:
            if self._begun[what]:
                self.wrong.append(f"{what} has begun")


def roomy(made: Settings) -> Settings:
    """Give so many threads that those which wait in a test hold up nobody."""
    return made.model_copy(update={"vision": made.vision.model_copy(update={"threads": 15})})


def test_the_next_pictures_are_decoded_and_the_last_ones_drawn_while_the_model_looks(
    web: FlaskClient, db: Db, made: Settings, blobs: LocalBlobs, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(40)], "augmentations": []})
    pipeline = Pipeline(roomy(made), db, blobs, detector, "worker-a")
    numbers = {image["id"]: at for at, image in enumerate(said["images"])}
    prepare, finish, predict = look.prepare, look.finish, detector.predict
    order, calls = Order(), itertools.count()

    def prepared(picture: Picture, **given: Any) -> Prepared:
        order.begun(f"decoding {numbers[given['image_id']] // 8}")
        return prepare(picture, **given)

    def seen(pictures: list[Any], **given: Any) -> list[Any]:
        call = next(calls)
        order.not_yet(f"decoding {call + 2}")  # three groups are under way at the most
        if call < 4:
            order.wait(f"decoding {call + 1}", 8)  # at the fourth call, of the next claim
        order.begun(f"detection {call}")
        return predict(pictures, **given)

    def finished(one: Prepared, *given: Any) -> Prepared:
        group = numbers[one.image_id] // 8
        if group < 3:
            order.wait(f"detection {group + 1}", 1)
        return finish(one, *given)

    monkeypatch.setattr(look, "prepare", prepared)
    monkeypatch.setattr(look, "finish", finished)
    monkeypatch.setattr(detector, "predict", seen)
    run(pipeline)
    pipeline.stop()
    assert count(db) == {"done": 40}
    assert order.wrong == []


@pytest.mark.parametrize("at", [0, 4])
def test_nothing_is_looked_at_beside_a_picture_that_is_tried_alone(
    web: FlaskClient, db: Db, pipeline: Pipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    said = upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(9)], "augmentations": []})
    db.images.update_one({"_id": said["images"][at]["id"]}, {"$set": {"work.solo": True}})
    prepare, stored, predict, do = look.prepare, results.finish, detector.predict, pipeline._isolate.do
    steps: list[str] = []

    def prepared(picture: Picture, **given: Any) -> Prepared:
        steps.append("decoded")
        return prepare(picture, **given)

    def finish(*given: Any) -> set[str]:
        steps.append("stored")
        return stored(*given)

    def seen(pictures: list[Any], **given: Any) -> list[Any]:
        steps.append("seen")
        time.sleep(0.3)  # time for what must not happen
        return predict(pictures, **given)

    def alone(request: Any) -> Any:
        steps.append(type(request).__name__)
        return do(request)

    monkeypatch.setattr(look, "prepare", prepared)
    monkeypatch.setattr(results, "finish", finish)
    monkeypatch.setattr(detector, "predict", seen)
    monkeypatch.setattr(pipeline._isolate, "do", alone)
    run(pipeline)
    assert count(db) == {"done": 9}
    by_itself = ["Look", "seen", "Finish", "stored"]
    begins = steps.index("Look")
    assert steps[begins : begins + 4] == by_itself
    assert steps.count("decoded") == 8


def test_what_the_helper_says_while_it_draws_is_a_pictures_own_failure(web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    said = upload(web, db, [item(picture(1))])
    db.images.update_one({}, {"$set": {"work.solo": True}})
    do = pipeline._isolate.do

    def refuse(request: Any) -> Any:
        if isinstance(request, Finish):
            raise VisionError("out_of_memory")
        return do(request)

    monkeypatch.setattr(pipeline._isolate, "do", refuse)
    run(pipeline)
    assert web.get(said["links"]["self"]).get_json()["images"][0]["error"]["code"] == "out_of_memory"


def test_pictures_that_take_longer_than_a_claim_may_still_end_group_by_group(
    web: FlaskClient, db: Db, made: Settings, blobs: LocalBlobs, detector: detect.Detector
) -> None:
    upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(20)], "augmentations": [], "detect": False})
    hurried = made.model_copy(update={"worker": made.worker.model_copy(update={"soft_limit_s": 1e-6})})
    pipeline = Pipeline(hurried, db, blobs, detector, "worker-a")
    for done in (8, 16, 20):
        pipeline.work(pipeline.take())
        assert count(db)["done"] == done
    pipeline.stop()
    assert db.images.count_documents({"work.solo": True}) == 0


def test_after_a_time_limit_nobody_waits_for_what_was_given_back(web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    said = upload(web, db, {"images": [item(picture(number, (64, 48), "PNG")) for number in range(4)], "augmentations": [], "detect": False})

    def over(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, over)  # as Celery's own signal does, in the thread that works
    with monkeypatch.context() as during:
        during.setattr(isolate, "_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"])
        limit = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGUSR1))
        began = time.monotonic()
        limit.start()
        try:
            with pytest.raises(SoftTimeLimitExceeded):
                pipeline.work(pipeline.take())
        finally:
            limit.cancel()
            signal.signal(signal.SIGUSR1, before)
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 4
    run(pipeline)
    assert time.monotonic() - began < 60  # three helpers that stand still for 20 s each
    assert web.get(said["links"]["self"]).get_json()["counts"]["done"] == 4


def test_a_time_limit_does_not_wait_for_what_is_drawn(
    web: FlaskClient, db: Db, made: Settings, blobs: LocalBlobs, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.pipeline._LAST_S", 0.2)
    pipeline = Pipeline(roomy(made), db, blobs, detector, "worker-a")
    upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(12)], "augmentations": [], "detect": False})
    finish, go_on, groups = look.finish, threading.Event(), itertools.count()
    detected = pipeline._detect

    def finished(one: Prepared, *given: Any) -> Prepared:
        go_on.wait(60)
        return finish(one, *given)

    def limited(decoded: Any) -> Any:
        if next(groups):
            raise SoftTimeLimitExceeded
        return detected(decoded)

    with monkeypatch.context() as during:
        during.setattr(look, "finish", finished)
        during.setattr(pipeline, "_detect", limited)
        began = time.monotonic()
        with pytest.raises(SoftTimeLimitExceeded):
            pipeline.work(pipeline.take())
        assert time.monotonic() - began < 30
    assert count(db) == {"queued": 12}
    run(pipeline)  # while the old threads still wait
    go_on.set()
    assert count(db) == {"done": 12}
    pipeline.stop()


def test_a_fault_of_ours_before_the_first_look_is_tried_alone(web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(web, db, {"images": [item(picture(number, (16, 16))) for number in range(2)], "augmentations": [], "detect": False})

    def fault(_data: bytes) -> None:
        raise KeyError("a fault of ours")

    with monkeypatch.context() as during:
        during.setattr(imaging, "pixels", fault)
        with pytest.raises(KeyError):
            pipeline.take()
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 2
    time.sleep(1.1)
    run(pipeline)
    assert count(db) == {"done": 2}
