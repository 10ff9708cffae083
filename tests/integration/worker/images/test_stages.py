"""Tests that the groups in a claim overlap, that images tried alone do not overlap, and that time limits are kept."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.ledger import results
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, make_pipeline, run, upload, with_many_threads, with_turns
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
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
