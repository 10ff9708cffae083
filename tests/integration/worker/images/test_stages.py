"""Tests that the groups in a claim overlap, that images tried alone do not overlap, and that time limits are kept."""

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

from shared.ledger import results
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, make_pipeline, run, upload
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sandbox import parent
from worker.sandbox.requests import FinishImage
from worker.vision import image_steps, imaging
from worker.vision.detection import detect
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage
from worker.vision.imaging import DecodedImage

pytestmark = pytest.mark.slow


class Order:
    """Counts how often each step has started, and lets a step wait until another step has started.

    A wait that takes more than 120 s and a step that starts too early are recorded in ``errors``.
    """

    def __init__(self) -> None:
        self._started: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.errors: list[str] = []

    def start(self, step: str) -> None:
        with self._changed:
            self._started[step] += 1
            self._changed.notify_all()

    def wait(self, step: str, times: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._started[step] >= times, 120):
                self.errors.append(f"{step} has not started often enough within 120 s")

    def check_not_started(self, step: str) -> None:
        with self._changed:
            if self._started[step]:
                self.errors.append(f"{step} has started too early")


def with_many_threads(worker_settings: Settings) -> Settings:
    """Return settings with so many threads that threads which a test blocks do not delay other images."""
    return worker_settings.model_copy(update={"vision": worker_settings.vision.model_copy(update={"threads": 15})})


def test_the_next_group_is_decoded_and_the_previous_one_finished_while_the_model_runs(
    web: FlaskClient,
    db: Db,
    worker_settings: Settings,
    blobs: LocalBlobs,
    detector: detect.Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = upload(
        web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(40)], "augmentations": []}
    )
    pipeline = make_pipeline(with_many_threads(worker_settings), db, blobs, detector, "worker-a")
    numbers = {image["id"]: at for at, image in enumerate(batch["images"])}
    prepare, finish, predict = image_steps.prepare, image_steps.finish, detector.predict
    order, calls = Order(), itertools.count()

    def record_decoding(image: DecodedImage, **kwargs: Any) -> PreparedImage:
        order.start(f"decoding {numbers[kwargs['image_id']] // 8}")
        return prepare(image, **kwargs)

    def record_detection(images: list[Any], **kwargs: Any) -> list[Any]:
        call = next(calls)
        order.check_not_started(f"decoding {call + 2}")  # because at most three groups are in memory
        if call < 4:
            order.wait(f"decoding {call + 1}", 8)  # in the fourth call, this group belongs to the next claim
        order.start(f"detection {call}")
        return predict(images, **kwargs)

    def wait_for_detection(prepared: PreparedImage, *args: Any) -> PreparedImage:
        group = numbers[prepared.image_id] // 8
        if group < 3:
            order.wait(f"detection {group + 1}", 1)
        return finish(prepared, *args)

    monkeypatch.setattr(image_steps, "prepare", record_decoding)
    monkeypatch.setattr(image_steps, "finish", wait_for_detection)
    monkeypatch.setattr(detector, "predict", record_detection)
    run(pipeline)
    pipeline.stop()
    assert count(db) == {"done": 40}
    assert order.errors == []


def with_turns(worker_settings: Settings, *, in_turn: bool = True) -> Settings:
    return worker_settings.model_copy(
        update={"vision": worker_settings.vision.model_copy(update={"threads": 1, "in_turn": in_turn})}
    )


@pytest.mark.parametrize(
    ("in_turn", "device", "concurrent"), [(True, "cpu", False), (False, "cpu", True), (True, "cuda", True)]
)
def test_threads_and_the_model_take_turns_if_configured(
    web: FlaskClient,
    db: Db,
    worker_settings: Settings,
    blobs: LocalBlobs,
    detector: detect.Detector,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    *,
    in_turn: bool,
    concurrent: bool,
) -> None:
    upload(
        web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(24)], "augmentations": []}
    )
    decode, prepare, finish, predict = imaging.decode, image_steps.prepare, image_steps.finish, detector.predict
    busy, overlapped = threading.Semaphore(1), threading.Event()

    def record_overlap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            first = busy.acquire(blocking=False)
            if not first:
                overlapped.set()
            time.sleep(0.01)  # gives other calls the time to start, unless something prevents them
            try:
                return call(*args, **kwargs)
            finally:
                if first:
                    busy.release()

        return wrapped

    monkeypatch.setattr(detector, "device", device)
    monkeypatch.setattr(imaging, "decode", record_overlap(decode))
    monkeypatch.setattr(image_steps, "prepare", record_overlap(prepare))
    monkeypatch.setattr(
        image_steps,
        "finish",
        record_overlap(lambda prepared, detections, names, _: finish(prepared, detections, names, "cpu")),
    )
    monkeypatch.setattr(detector, "predict", record_overlap(predict))
    pipeline = make_pipeline(with_turns(worker_settings, in_turn=in_turn), db, blobs, detector, "worker-a")
    run(pipeline)
    pipeline.stop()
    assert count(db) == {"done": 24}
    assert overlapped.is_set() == concurrent


@pytest.mark.parametrize("at", [0, 4])
def test_no_image_is_processed_beside_one_that_is_tried_alone(
    web: FlaskClient,
    db: Db,
    pipeline: ImagePipeline,
    detector: detect.Detector,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    batch = upload(
        web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(9)], "augmentations": []}
    )
    db.images.update_one({"_id": batch["images"][at]["id"]}, {"$set": {"work.solo": True}})
    prepare, store, predict, run_in_sandbox = (
        image_steps.prepare,
        results.finish,
        detector.predict,
        pipeline._stages._sandbox.run,
    )
    steps: list[str] = []

    def record_decoding(image: DecodedImage, **kwargs: Any) -> PreparedImage:
        steps.append("decode")
        return prepare(image, **kwargs)

    def record_storing(*args: Any) -> set[str]:
        steps.append("store")
        return store(*args)

    def record_detection(images: list[Any], **kwargs: Any) -> list[Any]:
        steps.append("detect")
        time.sleep(0.3)  # gives other steps the time to start, which they must not do
        return predict(images, **kwargs)

    def record_request(request: Any) -> Any:
        steps.append(type(request).__name__)
        return run_in_sandbox(request)

    monkeypatch.setattr(image_steps, "prepare", record_decoding)
    monkeypatch.setattr(results, "finish", record_storing)
    monkeypatch.setattr(detector, "predict", record_detection)
    monkeypatch.setattr(pipeline._stages._sandbox, "run", record_request)
    run(pipeline)
    assert count(db) == {"done": 9}
    start = steps.index("PrepareImage")
    assert steps[start : start + 4] == ["PrepareImage", "detect", "FinishImage", "store"]
    assert steps.count("decode") == 8


def test_a_fault_that_the_sandbox_reports_while_it_finishes_an_image_fails_that_image(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload(web, db, [image_payload(make_image(1))])
    db.images.update_one({}, {"$set": {"work.solo": True}})
    run_in_sandbox = pipeline._stages._sandbox.run

    def refuse(request: Any) -> Any:
        if isinstance(request, FinishImage):
            raise VisionError("out_of_memory")
        return run_in_sandbox(request)

    monkeypatch.setattr(pipeline._stages._sandbox, "run", refuse)
    run(pipeline)
    assert web.get(batch["links"]["self"]).get_json()["images"][0]["error"]["code"] == "out_of_memory"


def test_a_claim_that_exceeds_its_time_is_finished_group_by_group(
    web: FlaskClient, db: Db, worker_settings: Settings, blobs: LocalBlobs, detector: detect.Detector
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
    short_limit = worker_settings.model_copy(
        update={"worker": worker_settings.worker.model_copy(update={"soft_limit_s": 1e-6})}
    )
    pipeline = make_pipeline(short_limit, db, blobs, detector, "worker-a")
    for done in (8, 16, 20):
        pipeline.process(pipeline.claim_next())
        assert count(db)["done"] == done
    pipeline.stop()
    assert db.images.count_documents({"work.solo": True}) == 0


def test_after_a_time_limit_the_next_claim_does_not_wait_for_the_aborted_one(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (64, 48), "PNG")) for number in range(4)],
            "augmentations": [],
            "detect": False,
        },
    )

    def exceed_time_limit(*_: object) -> None:
        raise SoftTimeLimitExceeded

    # Celery's signal for the soft time limit is handled in the main thread in the same way.
    before = signal.signal(signal.SIGUSR1, exceed_time_limit)
    with monkeypatch.context() as patch:
        patch.setattr(parent, "_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"])
        limit = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGUSR1))
        claim = pipeline.claim_next()
        started_at = time.monotonic()
        limit.start()
        try:
            with pytest.raises(SoftTimeLimitExceeded):
                pipeline.process(claim)
        finally:
            limit.cancel()
            signal.signal(signal.SIGUSR1, before)
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 4
    run(pipeline)
    # Waiting for three sandbox children that hang for 20 s each would take longer.
    assert time.monotonic() - started_at < 60
    assert web.get(batch["links"]["self"]).get_json()["counts"]["done"] == 4


def test_a_time_limit_does_not_wait_for_images_that_are_being_finished(
    web: FlaskClient,
    db: Db,
    worker_settings: Settings,
    blobs: LocalBlobs,
    detector: detect.Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.images.pipeline._ABORT_WAIT_S", 0.2)
    pipeline = make_pipeline(with_many_threads(worker_settings), db, blobs, detector, "worker-a")
    upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (16, 16))) for number in range(12)],
            "augmentations": [],
            "detect": False,
        },
    )
    finish, release, groups = image_steps.finish, threading.Event(), itertools.count()
    detect_group = pipeline._stages.detect

    def wait_and_finish(prepared: PreparedImage, *args: Any) -> PreparedImage:
        release.wait(60)
        return finish(prepared, *args)

    def exceed_time_limit(decoded: Any) -> Any:
        if next(groups):
            raise SoftTimeLimitExceeded
        return detect_group(decoded)

    with monkeypatch.context() as patch:
        patch.setattr(image_steps, "finish", wait_and_finish)
        patch.setattr(pipeline._stages, "detect", exceed_time_limit)
        started_at = time.monotonic()
        with pytest.raises(SoftTimeLimitExceeded):
            pipeline.process(pipeline.claim_next())
        assert time.monotonic() - started_at < 30
    assert count(db) == {"queued": 12}
    run(pipeline)  # the old threads are still waiting at this point
    release.set()
    assert count(db) == {"done": 12}
    pipeline.stop()


def test_a_time_limit_does_not_wait_for_the_turn_of_the_model(
    web: FlaskClient,
    db: Db,
    worker_settings: Settings,
    blobs: LocalBlobs,
    detector: detect.Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.images.pipeline._ABORT_WAIT_S", 0.2)
    pipeline = make_pipeline(with_turns(worker_settings), db, blobs, detector, "worker-a")
    upload(
        web, db, {"images": [image_payload(make_image(number, (16, 16))) for number in range(12)], "augmentations": []}
    )
    finish, finishing, release, turns = image_steps.finish, threading.Event(), threading.Event(), itertools.count()

    def wait_and_finish(prepared: PreparedImage, *args: Any) -> PreparedImage:
        finishing.set()
        release.wait()
        return finish(prepared, *args)

    class LimitedTurn(AbstractContextManager[None]):
        """Replaces the lock for turns: when the model requests its second turn, the time limit is reached instead."""

        turn = pipeline._stages._turn

        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread() and next(turns):
                assert finishing.wait(120)
                raise SoftTimeLimitExceeded
            self.turn.__enter__()

        def __exit__(self, *_: object) -> None:
            self.turn.__exit__(None, None, None)

    timer = threading.Timer(280, release.set)
    timer.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(image_steps, "finish", wait_and_finish)
            patch.setattr(pipeline._stages, "_turn", LimitedTurn())
            with pytest.raises(SoftTimeLimitExceeded):
                pipeline.process(pipeline.claim_next())
        assert count(db) == {"queued": 12}
        upload(
            web,
            db,
            {"images": [image_payload(make_image(number, (16, 16))) for number in range(12)], "augmentations": []},
        )  # unlike the first images, these are not tried alone
        run(pipeline)  # the old thread still holds its turn at this point
        assert count(db) == {"done": 24}
        assert not release.is_set()
    finally:
        timer.cancel()
        release.set()
        pipeline.stop()


def test_a_claim_that_can_no_longer_be_started_is_released(
    web: FlaskClient,
    db: Db,
    worker_settings: Settings,
    blobs: LocalBlobs,
    detector: detect.Detector,
    pipeline: ImagePipeline,
) -> None:
    upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (16, 16))) for number in range(2)],
            "augmentations": [],
            "detect": False,
        },
    )
    stopped = make_pipeline(worker_settings, db, blobs, detector, "worker-b")
    stopped.stop()
    with pytest.raises(RuntimeError):
        stopped.claim_next()
    assert db.images.count_documents({"status": "queued", "work.released_for": "not_begun", "work.solo": False}) == 2
    run(pipeline)
    assert count(db) == {"done": 2}


def test_images_of_a_claim_that_failed_before_decoding_are_tried_alone(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(
        web,
        db,
        {
            "images": [image_payload(make_image(number, (16, 16))) for number in range(2)],
            "augmentations": [],
            "detect": False,
        },
    )

    def fail(_data: bytes) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "read_pixel_count", fail)
        with pytest.raises(KeyError):
            pipeline.claim_next()
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.faults": 0}) == 2
    time.sleep(1.1)
    run(pipeline)
    assert count(db) == {"done": 2}
