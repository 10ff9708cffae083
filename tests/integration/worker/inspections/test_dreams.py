"""An inspector computes one dream at a time, and the dreams that wait for it delay no other inspection."""

import threading

import pytest

from shared.inspections import jobs
from shared.inspections.recipes import Augment, Source
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.inspections.inspecting import NAMES, Inspector, SlowDreamer, request_dreams, serving
from tests.support.service_stack import wait_until
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow


def test_dreams_that_wait_for_each_other_delay_no_other_inspection(inspector: Inspector, photo: bytes) -> None:
    inspector.pipeline._settings = inspector.settings.model_copy(
        update={"inspect": inspector.settings.inspect.model_copy(update={"at_once": 4})}
    )
    released = threading.Event()
    inspector.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
    dreams = request_dreams(inspector, photo, 8)
    thread = threading.Thread(target=inspector.pipeline.run, args=(lambda: None, 240))
    thread.start()
    wait_until(lambda: jobs.count_pending(inspector.db)["processing"] >= 2, 120, "the claim of two dreams")
    with serving(photo) as source:
        others = [inspector.request(Source(url=f"{source.url}/{number}.jpg"), Augment(NAMES)) for number in range(3)]
        wait_until(lambda: all(jobs.get(inspector.db, job_id).status == "done" for job_id in others), 120, "the other inspections")
    assert jobs.count_pending(inspector.db) == {"queued": 6, "processing": 2}
    released.set()
    thread.join(240)
    assert not thread.is_alive()
    assert [jobs.get(inspector.db, job_id).status for job_id in dreams] == ["done"] * 8


def test_dreams_that_one_inspector_leaves_are_done_by_another(
    inspector: Inspector, photo: bytes, worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector
) -> None:
    released = threading.Event()
    inspector.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
    dreams = request_dreams(inspector, photo, 5)
    thread = threading.Thread(target=inspector.pipeline.run, args=(lambda: None, 240))
    thread.start()
    wait_until(lambda: jobs.count_pending(db) == {"queued": 3, "processing": 2}, 120, "the claim of two dreams")
    other = Inspector(worker_settings, db, blobs, detector, owner="inspector-b")
    other.pipeline._dreamer = SlowDreamer(lambda: None)  # type: ignore[assignment]
    try:
        other.pipeline.run(lambda: None, 120)
    finally:
        other.pipeline.stop()
    assert sorted(jobs.get(db, job_id).status for job_id in dreams) == ["done"] * 3 + ["processing"] * 2
    released.set()
    thread.join(240)
    assert not thread.is_alive()
    assert [jobs.get(db, job_id).status for job_id in dreams] == ["done"] * 5
