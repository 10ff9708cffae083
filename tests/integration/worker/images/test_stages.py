"""How a claim's pictures are looked at beside each other, alone, and under a time limit."""

import itertools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask.testing import FlaskClient

from shared.bootstrap import open_stores
from shared.ledger import results
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, run, upload
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import Pipeline
from worker.sandbox import parent
from worker.sandbox.requests import FinishImage
from worker.vision import image_steps, imaging
from worker.vision.detection import detect
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage
from worker.vision.imaging import DecodedImage

pytestmark = pytest.mark.slow


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
            if not self._changed.wait_for(lambda: self._begun[what] >= times, 120):
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
    said = upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(40)], "augmentations": []})
    pipeline = Pipeline(open_stores(roomy(made), app="test", db=db, blobs=blobs), detector, "worker-a")
    numbers = {image["id"]: at for at, image in enumerate(said["images"])}
    prepare, finish, predict = image_steps.prepare, image_steps.finish, detector.predict
    order, calls = Order(), itertools.count()

    def prepared(picture: DecodedImage, **given: Any) -> PreparedImage:
        order.begun(f"decoding {numbers[given['image_id']] // 8}")
        return prepare(picture, **given)

    def seen(pictures: list[Any], **given: Any) -> list[Any]:
        call = next(calls)
        order.not_yet(f"decoding {call + 2}")  # three groups are under way at the most
        if call < 4:
            order.wait(f"decoding {call + 1}", 8)  # at the fourth call, of the next claim
        order.begun(f"detection {call}")
        return predict(pictures, **given)

    def finished(one: PreparedImage, *given: Any) -> PreparedImage:
        group = numbers[one.image_id] // 8
        if group < 3:
            order.wait(f"detection {group + 1}", 1)
        return finish(one, *given)

    monkeypatch.setattr(image_steps, "prepare", prepared)
    monkeypatch.setattr(image_steps, "finish", finished)
    monkeypatch.setattr(detector, "predict", seen)
    run(pipeline)
    pipeline.stop()
    assert count(db) == {"done": 40}
    assert order.wrong == []


def asked_to_take_turns(made: Settings, *, in_turn: bool = True) -> Settings:
    return made.model_copy(update={"vision": made.vision.model_copy(update={"threads": 1, "in_turn": in_turn})})


@pytest.mark.parametrize(("in_turn", "device", "beside"), [(True, "cpu", False), (False, "cpu", True), (True, "cuda", True)])
def test_threads_and_the_model_take_turns_where_they_are_asked_to(
    web: FlaskClient,
    db: Db,
    made: Settings,
    blobs: LocalBlobs,
    detector: detect.Detector,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    *,
    in_turn: bool,
    beside: bool,
) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(24)], "augmentations": []})
    decode, prepare, finish, predict = imaging.decode, image_steps.prepare, image_steps.finish, detector.predict
    busy, together = threading.Semaphore(1), threading.Event()

    def one_at_a_time(call: Callable[..., Any]) -> Callable[..., Any]:
        def computed(*given: Any, **named: Any) -> Any:
            first = busy.acquire(blocking=False)
            if not first:
                together.set()
            time.sleep(0.01)  # so that the others come meanwhile, if anything lets them
            try:
                return call(*given, **named)
            finally:
                if first:
                    busy.release()

        return computed

    monkeypatch.setattr(detector, "device", device)
    monkeypatch.setattr(imaging, "decode", one_at_a_time(decode))
    monkeypatch.setattr(image_steps, "prepare", one_at_a_time(prepare))
    monkeypatch.setattr(image_steps, "finish", one_at_a_time(lambda one, found, names, _: finish(one, found, names, "cpu")))
    monkeypatch.setattr(detector, "predict", one_at_a_time(predict))
    pipeline = Pipeline(open_stores(asked_to_take_turns(made, in_turn=in_turn), app="test", db=db, blobs=blobs), detector, "worker-a")
    run(pipeline)
    pipeline.stop()
    assert count(db) == {"done": 24}
    assert together.is_set() == beside


@pytest.mark.parametrize("at", [0, 4])
def test_nothing_is_looked_at_beside_a_picture_that_is_tried_alone(
    web: FlaskClient, db: Db, pipeline: Pipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    said = upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(9)], "augmentations": []})
    db.images.update_one({"_id": said["images"][at]["id"]}, {"$set": {"work.solo": True}})
    prepare, stored, predict, do = image_steps.prepare, results.finish, detector.predict, pipeline._looking._isolate.run
    steps: list[str] = []

    def prepared(picture: DecodedImage, **given: Any) -> PreparedImage:
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

    monkeypatch.setattr(image_steps, "prepare", prepared)
    monkeypatch.setattr(results, "finish", finish)
    monkeypatch.setattr(detector, "predict", seen)
    monkeypatch.setattr(pipeline._looking._isolate, "run", alone)
    run(pipeline)
    assert count(db) == {"done": 9}
    by_itself = ["Look", "seen", "Finish", "stored"]
    begins = steps.index("Look")
    assert steps[begins : begins + 4] == by_itself
    assert steps.count("decoded") == 8


def test_what_the_helper_says_while_it_draws_is_a_pictures_own_failure(web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    said = upload(web, db, [image_payload(make_image(1))])
    db.images.update_one({}, {"$set": {"work.solo": True}})
    do = pipeline._looking._isolate.run

    def refuse(request: Any) -> Any:
        if isinstance(request, FinishImage):
            raise VisionError("out_of_memory")
        return do(request)

    monkeypatch.setattr(pipeline._looking._isolate, "run", refuse)
    run(pipeline)
    assert web.get(said["links"]["self"]).get_json()["images"][0]["error"]["code"] == "out_of_memory"


def test_pictures_that_take_longer_than_a_claim_may_still_end_group_by_group(
    web: FlaskClient, db: Db, made: Settings, blobs: LocalBlobs, detector: detect.Detector
) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(20)], "augmentations": [], "detect": False})
    hurried = made.model_copy(update={"worker": made.worker.model_copy(update={"soft_limit_s": 1e-6})})
    pipeline = Pipeline(open_stores(hurried, app="test", db=db, blobs=blobs), detector, "worker-a")
    for done in (8, 16, 20):
        pipeline.work(pipeline.take())
        assert count(db)["done"] == done
    pipeline.stop()
    assert db.images.count_documents({"work.solo": True}) == 0


def test_after_a_time_limit_nobody_waits_for_what_was_given_back(web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    said = upload(web, db, {"images": [image_payload(make_image(number, (64, 48), "PNG")) for number in range(4)], "augmentations": [], "detect": False})

    def over(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, over)  # as Celery's own signal does, in the thread that works
    with monkeypatch.context() as during:
        during.setattr(parent, "_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"])
        limit = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGUSR1))
        taken = pipeline.take()
        began = time.monotonic()
        limit.start()
        try:
            with pytest.raises(SoftTimeLimitExceeded):
                pipeline.work(taken)
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
    monkeypatch.setattr("worker.images.pipeline._LAST_S", 0.2)
    pipeline = Pipeline(open_stores(roomy(made), app="test", db=db, blobs=blobs), detector, "worker-a")
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(12)], "augmentations": [], "detect": False})
    finish, go_on, groups = image_steps.finish, threading.Event(), itertools.count()
    detected = pipeline._looking.detect

    def finished(one: PreparedImage, *given: Any) -> PreparedImage:
        go_on.wait(60)
        return finish(one, *given)

    def limited(decoded: Any) -> Any:
        if next(groups):
            raise SoftTimeLimitExceeded
        return detected(decoded)

    with monkeypatch.context() as during:
        during.setattr(image_steps, "finish", finished)
        during.setattr(pipeline._looking, "detect", limited)
        began = time.monotonic()
        with pytest.raises(SoftTimeLimitExceeded):
            pipeline.work(pipeline.take())
        assert time.monotonic() - began < 30
    assert count(db) == {"queued": 12}
    run(pipeline)  # while the old threads still wait
    go_on.set()
    assert count(db) == {"done": 12}
    pipeline.stop()


def test_a_time_limit_does_not_wait_until_it_is_the_models_turn(
    web: FlaskClient, db: Db, made: Settings, blobs: LocalBlobs, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.images.pipeline._LAST_S", 0.2)
    pipeline = Pipeline(open_stores(asked_to_take_turns(made), app="test", db=db, blobs=blobs), detector, "worker-a")
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(12)], "augmentations": []})
    finish, drawing, go_on, asked = image_steps.finish, threading.Event(), threading.Event(), itertools.count()

    def finished(one: PreparedImage, *given: Any) -> PreparedImage:
        drawing.set()
        go_on.wait()
        return finish(one, *given)

    class Limited(AbstractContextManager[None]):
        """A turn that the model does not get a second time before the limit comes."""

        turn = pipeline._looking._turn

        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread() and next(asked):
                assert drawing.wait(120)
                raise SoftTimeLimitExceeded
            self.turn.__enter__()

        def __exit__(self, *_: object) -> None:
            self.turn.__exit__(None, None, None)

    late = threading.Timer(280, go_on.set)
    late.start()
    try:
        with monkeypatch.context() as during:
            during.setattr(image_steps, "finish", finished)
            during.setattr(pipeline._looking, "_turn", Limited())
            with pytest.raises(SoftTimeLimitExceeded):
                pipeline.work(pipeline.take())
        assert count(db) == {"queued": 12}
        upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(12)], "augmentations": []})  # these are not tried alone
        run(pipeline)  # while the old thread still has its turn
        assert count(db) == {"done": 24}
        assert not go_on.is_set()
    finally:
        late.cancel()
        go_on.set()
        pipeline.stop()


def test_a_claim_that_can_no_longer_be_begun_is_given_back(
    web: FlaskClient, db: Db, made: Settings, blobs: LocalBlobs, detector: detect.Detector, pipeline: Pipeline
) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(2)], "augmentations": [], "detect": False})
    broken_off = Pipeline(open_stores(made, app="test", db=db, blobs=blobs), detector, "worker-b")
    broken_off.stop()
    with pytest.raises(RuntimeError):
        broken_off.take()
    assert db.images.count_documents({"status": "queued", "work.released_for": "not_begun", "work.solo": False}) == 2
    run(pipeline)
    assert count(db) == {"done": 2}


def test_a_fault_of_ours_before_the_first_look_is_tried_alone(web: FlaskClient, db: Db, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(2)], "augmentations": [], "detect": False})

    def fault(_data: bytes) -> None:
        raise KeyError("a fault of ours")

    with monkeypatch.context() as during:
        during.setattr(imaging, "read_pixel_count", fault)
        with pytest.raises(KeyError):
            pipeline.take()
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 2
    time.sleep(1.1)
    run(pipeline)
    assert count(db) == {"done": 2}
