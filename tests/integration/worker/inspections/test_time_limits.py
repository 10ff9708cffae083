"""Time limits of inspections: for each step, for the turn, and for the process."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.inspections import jobs, recipes
from shared.inspections.recipes import Augment, Describe, Source
from shared.settings import Settings
from shared.storage.blob_keys import incoming_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.faults.images import draw_valid_image
from tests.integration.worker.inspections.inspecting import NAMES, Inspector, SlowDreamer, request_dreams
from tests.support import image_sources
from tests.support.service_stack import wait_until
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow


@contextmanager
def limited(inspector: Inspector, hard_limit_s: float) -> Iterator[list[int]]:
    """Set a time limit for each step, and return the list of the exits of the inspector's process."""
    data = draw_valid_image(random.Random(11)).data
    source = Source(sha256=hashlib.sha256(data).hexdigest())
    inspector.blobs.write(incoming_key(recipes.job_id(source, Describe())), [data])
    inspector.run(source, Describe())  # starts the sandbox process before the limit is set
    inspector.pipeline._settings = inspector.settings.model_copy(
        update={"worker": inspector.settings.worker.model_copy(update={"hard_limit_s": hard_limit_s})}
    )
    exits: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.inspections.pipeline.os._exit", exits.append)
        yield exits
        inspector.pipeline.stop()


@pytest.fixture
def short_leases(worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> Iterator[Inspector]:
    """Return an inspector whose leases end soon unless they are renewed, and which checks the time limits often."""
    inspector = Inspector(worker_settings, db, blobs, detector, lease_s=0.9)
    yield inspector
    inspector.pipeline.stop()


def test_an_inspection_that_exceeds_the_hard_limit_ends_the_process(short_leases: Inspector) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(280)

    with limited(short_leases, 0.1) as exits, image_sources.SourceServer(hang) as source:
        short_leases.request(Source(url=f"{source.url}/a.jpg"), Augment(NAMES))
        assert short_leases.pipeline.run(lambda: None, 0.5)
        wait_until(lambda: exits, 120, "the end of the process")
        released.set()
    assert set(exits) == {1}


def test_inspections_that_together_take_longer_than_the_hard_limit_are_done_one_after_the_other(
    short_leases: Inspector, photo: bytes
) -> None:
    with limited(short_leases, 5) as exits:
        short_leases.pipeline._dreamer = SlowDreamer(lambda: time.sleep(1.5))  # type: ignore[assignment]
        ids = request_dreams(short_leases, photo, 5)
        short_leases.pipeline.run(lambda: None, 120)
        found = [jobs.get(short_leases.db, job_id) for job_id in ids]
        assert [(job.status, job.fence) for job in found] == [("done", 1)] * 5  # no lease was lost in the meantime
        assert exits == []


def test_when_a_step_hangs_the_other_inspections_are_released_before_the_process_ends(
    short_leases: Inspector, photo: bytes
) -> None:
    db, released = short_leases.db, threading.Event()
    with limited(short_leases, 5) as exits:
        short_leases.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
        ids = request_dreams(short_leases, photo, 4)
        short_leases.pipeline.run(lambda: None, 0.5)
        wait_until(lambda: exits, 120, "the end of the process")
        found = [db.inspections.find_one({"_id": job_id}) or {} for job_id in ids]
        assert sorted(job["status"] for job in found) == ["processing", "queued", "queued", "queued"]
        wait_until(lambda: jobs.expire_leases(db, 10) == 1, 60, "the end of the lease of the hanging inspection")
        found = [db.inspections.find_one({"_id": job_id}) or {} for job_id in ids]
        assert sorted(job["losses"] for job in found) == [0, 0, 0, 1]
        released.set()


def test_an_inspection_that_waits_too_long_for_its_turn_fails_with_a_code(
    short_leases: Inspector, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    with limited(short_leases, 600) as exits:
        monkeypatch.setattr(jobs, "MAX_WAIT_S", 6)
        monkeypatch.setattr("worker.inspections.pipeline._RETRY_FOR_S", 3)
        short_leases.pipeline._dreamer = SlowDreamer(lambda: released.wait(280))  # type: ignore[assignment]
        ids = request_dreams(short_leases, photo, 2)
        short_leases.pipeline.run(lambda: None, 0.5)
        wait_until(lambda: any(not jobs.get(short_leases.db, job_id).pending for job_id in ids), 120, "the failure")
        released.set()
        short_leases.pipeline.run(lambda: None, 60)
        found = sorted((jobs.get(short_leases.db, job_id) for job_id in ids), key=lambda job: job.status)
        assert [job.status for job in found] == ["done", "failed"]
        error = found[1].error or {}
        assert (error["status"], error["code"], error["detail"]) == (503, "unavailable", jobs.NOT_IN_TIME)
        assert exits == []
