"""How a claim ends at its time limit: finished results are kept, the rest is released, and nothing waits for aborted work."""


import itertools
import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask.testing import FlaskClient

from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.running import count, make_pipeline, run, upload, with_many_threads, with_turns
from tests.support.web_client import image_payload, make_image
from worker.images.pipeline import ImagePipeline
from worker.sandbox import parent
from worker.vision import image_steps
from worker.vision.detection import detect
from worker.vision.image_steps import PreparedImage

pytestmark = pytest.mark.slow


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
