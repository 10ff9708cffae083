"""Every image ends: attempts that it may have caused to fail are counted, and others are not."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask.testing import FlaskClient

from shared.ledger import claims, results
from shared.states import SOLO_DEATHS_ALLOWED, SOLO_LOSSES_ALLOWED
from shared.storage.mongo import Db
from tests.integration.worker.running import count, run, upload
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sandbox import parent
from worker.sandbox.parent import SandboxKilled
from worker.vision import imaging
from worker.vision.detection import detect

pytestmark = pytest.mark.slow


def upload_images(web: FlaskClient, db: Db, number: int = 1, image_format: str = "JPEG", *, solo: bool = False) -> Any:
    """Upload small images, which are processed alone if ``solo`` is true."""
    images = [image_payload(make_image(at, (64, 48), image_format)) for at in range(number)]
    batch = upload(web, db, {"images": images, "augmentations": []})
    db.images.update_many({}, {"$set": {"work.solo": solo}})
    return batch


def run_at_once(pipeline: ImagePipeline, db: Db) -> None:
    """Process the images, without waiting until their delays have passed."""
    db.images.update_many({}, [{"$set": {"work.not_before": "$created_at"}}])
    run(pipeline)


def errors(web: FlaskClient, batch: Any) -> list[str | None]:
    """Return the error code of each image, in order. It is None for an image that is done."""
    images = web.get(batch["links"]["self"]).get_json()["images"]
    assert {image["status"] for image in images} <= {"done", "failed"}
    return [image["error"] and image["error"]["code"] for image in images]


def exceed_time_limit(*_: object, **__: object) -> Any:
    raise SoftTimeLimitExceeded


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise SoftTimeLimitExceeded in the main thread after some seconds, as Celery does with its signal."""
    before = signal.signal(signal.SIGUSR1, exceed_time_limit)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def test_an_image_that_exceeds_the_time_limit_alone_three_times_fails(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_images(web, db, 2)
    slow = batch["images"][0]["id"]
    predict = detector.predict

    def hang_for_the_first(images: list[Any], **kwargs: Any) -> Any:
        holders = {image["_id"] for image in db.images.find({"status": "processing"}, {"_id": 1})}
        return exceed_time_limit() if slow in holders else predict(images, **kwargs)

    monkeypatch.setattr(detector, "predict", hang_for_the_first)
    for faults in range(SOLO_DEATHS_ALLOWED + 1):  # in the first attempt, the image is not alone
        with pytest.raises(SoftTimeLimitExceeded):
            run_at_once(pipeline, db)
        assert db.images.count_documents({"_id": slow, "work.solo": True, "work.faults": faults}) == 1
    run_at_once(pipeline, db)
    assert errors(web, batch) == ["decoder_crash", None]


def test_a_time_limit_while_the_results_of_an_image_alone_are_stored_is_not_its_fault(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_images(web, db, solo=True)
    for _ in range(SOLO_DEATHS_ALLOWED + 1):
        with monkeypatch.context() as patch:
            patch.setattr(results, "finish", exceed_time_limit)
            with pytest.raises(SoftTimeLimitExceeded):
                run_at_once(pipeline, db)
    assert db.images.count_documents({"work.faults": 0}) == 1
    run_at_once(pipeline, db)
    assert errors(web, batch) == [None]


def test_an_image_whose_header_hangs_in_the_worker_delays_the_others_until_the_time_limit_only(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.images.pipeline._ABORT_WAIT_S", 0.2)
    batch = upload_images(web, db, 3)
    release, read = threading.Event(), imaging.read_pixel_count
    hanging = make_image(1, (64, 48))

    def hang(data: bytes) -> int | None:
        if data == hanging:
            release.wait(280)
        return read(data)

    monkeypatch.setattr(imaging, "read_pixel_count", hang)
    try:
        with time_limit(1.5), pytest.raises(SoftTimeLimitExceeded):
            run(pipeline)
        solo = {"status": "queued", "work.solo": True, "work.faults": 0, "work.released_for": "time_limit"}
        assert db.images.count_documents(solo) == 3
        run_at_once(pipeline, db)  # an image that is processed alone is not even looked at outside of the sandbox
        assert not release.is_set()
    finally:
        release.set()
    assert errors(web, batch) == [None, None, None]


def test_images_that_are_claimed_after_the_claim_was_abandoned_are_released(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.images.pipeline._ABORT_WAIT_S", 0.2)
    batch = upload_images(web, db, 2)
    release, claim = threading.Event(), claims.claim

    def claim_late(*args: Any, **kwargs: Any) -> claims.Claim:
        release.wait(280)
        return claim(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(claims, "claim", claim_late)
        with time_limit(0.5), pytest.raises(SoftTimeLimitExceeded):
            run(pipeline)
        thread = next(thread for thread in threading.enumerate() if thread.name.startswith("claim"))
        release.set()
        thread.join(60)
    assert db.images.count_documents({"status": "queued", "work.solo": False, "work.fence": 1}) == 2
    run_at_once(pipeline, db)
    assert errors(web, batch) == [None, None]


def test_an_image_fails_after_its_process_has_died_too_often(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    batch = upload_images(web, db, 2, solo=True)
    first, second = (image["id"] for image in batch["images"])
    for image_id, losses in ((first, SOLO_LOSSES_ALLOWED), (second, SOLO_LOSSES_ALLOWED - 1)):
        db.images.update_one({"_id": image_id}, {"$set": {"work.losses": losses}})
    run(pipeline)
    assert errors(web, batch) == ["decoder_crash", None]
    assert db.images.count_documents({"work.begun": 1}) == 1  # the exhausted image was not processed once more


def test_an_image_whose_sandbox_process_is_always_killed_fails_and_the_others_do_not(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = upload_images(web, db, 3, "PNG")
    killed = batch["images"][0]["id"]
    run_in_sandbox = pipeline._stages._sandbox.run

    def kill_one(request: Any) -> Any:
        if getattr(request, "image_id", None) == killed:
            raise SandboxKilled("The process was killed.")
        return run_in_sandbox(request)

    monkeypatch.setattr(pipeline._stages._sandbox, "run", kill_one)
    pipeline.process(pipeline.claim_next())
    assert db.images.count_documents({"status": "queued", "work.solo": True, "work.losses": 0}) == 3
    for _ in range(SOLO_LOSSES_ALLOWED + 1):
        run_at_once(pipeline, db)
    assert errors(web, batch) == ["decoder_crash", None, None]
    found = db.images.find({}, {"work": 1}).sort("_id", 1)
    assert [(image["work"]["losses"], image["work"]["faults"]) for image in found] == [
        (SOLO_LOSSES_ALLOWED, 0),
        (0, 0),
        (0, 0),
    ]


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("cause", ["no process", "no thread", "no thread for the first step", "crash while importing", "kill while importing", "hang while importing"])
def test_an_image_never_fails_because_its_sandbox_process_cannot_be_started(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    programs = {
        "no process": ["/missing/program"],
        "crash while importing": [sys.executable, "-c", "import missing"],
        "kill while importing": [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
        "hang while importing": [sys.executable, "-c", "import time; time.sleep(600)"],
    }
    batch = upload_images(web, db, 1, "PNG", solo=True)
    with monkeypatch.context() as patch:
        if cause in programs:
            patch.setattr(parent, "_command", lambda *_: programs[cause])
            patch.setattr(pipeline._stages._sandbox, "_start_timeout_s", 0.2)
        elif cause == "no thread":
            patch.setattr(threading.Timer, "start", no_thread)
        else:
            patch.setattr(pipeline._stages._decoder, "_adjust_thread_count", lambda: no_thread(threading.current_thread()))
        for _ in range(SOLO_LOSSES_ALLOWED + 1):
            run_at_once(pipeline, db)
        assert db.images.count_documents({"status": "queued", "work.faults": 0, "work.losses": {"$in": [None, 0]}}) == 1
        delays = [image["work"]["not_before"] - image["updated_at"] for image in db.images.find()]
        assert [delay.total_seconds() for delay in delays] == [30]
    pipeline._replace_stages()
    run_at_once(pipeline, db)
    assert errors(web, batch) == [None]


def test_an_attempt_whose_lease_was_lost_before_it_began_processes_nothing(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, detector: detect.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_images(web, db, solo=True)
    claimed = pipeline.claim_next()
    db.images.update_many({}, {"$inc": {"work.fence": 1}})  # as a deletion does
    monkeypatch.setattr(detector, "predict", exceed_time_limit)
    pipeline.process(claimed)
    assert count(db) == {"processing": 1}
