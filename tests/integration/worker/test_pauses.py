"""While a queue is paused, its workers finish what they hold and claim nothing more, and the sweep wakes nobody."""

import hashlib
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.bootstrap import Stores, open_stores
from shared.inspections import recipes
from shared.inspections.recipes import Describe, Source
from shared.ledger import claims
from shared.queue import pauses
from shared.queues import IMAGES, INSPECTIONS, JOBS, QUEUES, WorkQueue
from shared.settings import Settings
from shared.storage.blob_keys import incoming_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.shared.inspections.requesting import request
from tests.integration.shared.jobs.requesting import request_job
from tests.integration.worker.inspections.inspecting import Inspector
from tests.integration.worker.jobs.tagging import make_worker
from tests.integration.worker.running import count, run, upload_images
from tests.support.ledger import commit_new_batch
from tests.support.web_client import make_image
from worker.images.pipeline import ImagePipeline
from worker.sweep import jobs as job_sweep
from worker.sweep.images import ImageSweep
from worker.sweep.inspections import InspectionSweep
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow


def label(queue: WorkQueue) -> str:
    return queue.label


def test_a_worker_claims_no_images_while_the_queue_is_paused(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    pauses.pause(db, IMAGES, None)
    upload_images(web, db, 3)
    run(pipeline)
    assert count(db) == {"queued": 3}
    pauses.resume(db, IMAGES)
    run(pipeline)
    assert count(db) == {"done": 3}
    assert pipeline.finished.read()[0] == 3


def test_a_worker_finishes_the_images_that_it_holds_when_the_queue_is_paused(
    web: FlaskClient, db: Db, pipeline: ImagePipeline
) -> None:
    upload_images(web, db, 3)
    held = pipeline.claim_next()
    assert len(held.claim.images) == 3
    pauses.pause(db, IMAGES, None)
    upload_images(web, db, 2)
    pipeline.process(held)
    run(pipeline)
    assert count(db) == {"done": 3, "queued": 2}


def test_an_inspector_claims_nothing_while_the_queue_is_paused(
    worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector
) -> None:
    inspector = Inspector(worker_settings, db, blobs, detector)
    data = make_image(1)
    source = Source(sha256=hashlib.sha256(data).hexdigest())
    blobs.write(incoming_key(recipes.job_id(source, Describe())), [data])
    try:
        pauses.pause(db, INSPECTIONS, None)
        inspector.request(source, Describe())
        inspector.pipeline.run(lambda: None, 60)
        assert db.inspections.count_documents({"status": "queued"}) == 1
        pauses.resume(db, INSPECTIONS)
        inspector.pipeline.run(lambda: None, 60)
        assert db.inspections.count_documents({"status": "done"}) == 1
        assert inspector.pipeline.finished.read()[0] == 1
    finally:
        inspector.pipeline.stop()


def test_a_worker_claims_no_jobs_while_the_queue_is_paused(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    worker = make_worker(db, mongo, blobs_root)
    try:
        pauses.pause(db, JOBS, None)
        request_job(db)
        assert worker.run(lambda: None, 60) is False
        assert db.jobs.count_documents({"status": "queued"}) == 1
        pauses.resume(db, JOBS)
        worker.run(lambda: None, 60)
        assert db.jobs.count_documents({"status": "done"}) == 1
        assert worker.finished.read()[0] == 1
    finally:
        worker.stop()


def add_work(db: Db, queue: WorkQueue) -> None:
    if queue == IMAGES:
        commit_new_batch(db, 1)
    elif queue == INSPECTIONS:
        request(db)
    else:
        request_job(db)


def repair(stores: Stores) -> None:
    ImageSweep(stores).publish_wakeup(float("inf"))
    InspectionSweep(stores).repair()
    job_sweep.repair(stores)


@pytest.mark.parametrize("queue", QUEUES, ids=label)
def test_the_sweep_publishes_no_wakeup_for_a_paused_queue(
    db: Db, worker_settings: Settings, redis_url: str, queue: WorkQueue
) -> None:
    configuration = worker_settings.model_copy(update={"redis": settings.Redis(url=redis_url)})
    stores = open_stores(configuration, app="test", db=db)
    wakeups = stores.wakeups[queue]
    wakeups._redis.delete(queue.name)
    add_work(db, queue)
    try:
        pauses.pause(db, queue, None)
        repair(stores)
        assert wakeups.count_waiting() == 0
        pauses.resume(db, queue)
        repair(stores)
        assert wakeups.count_waiting() == 1
    finally:
        wakeups._redis.delete(queue.name)
        for publisher in stores.wakeups.values():
            publisher.close()


def test_images_that_are_claimed_in_advance_when_the_queue_is_paused_are_finished(
    web: FlaskClient, db: Db, pipeline: ImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker claims ahead. So at the moment of the pause it can hold two claims."""
    upload_images(web, db, 2)
    monkeypatch.setattr(pipeline._claim_size, "choose", lambda: 1)
    original, claimed = claims.claim, threading.Event()

    def claim_and_pause(*args: object, **kwargs: object) -> claims.Claim:
        found = original(*args, **kwargs)  # type: ignore[arg-type]
        if claimed.is_set():
            pauses.pause(db, IMAGES, None)
        claimed.set()
        return found

    monkeypatch.setattr(claims, "claim", claim_and_pause)
    upload_images(web, db, 1)
    run(pipeline)
    assert count(db) == {"done": 2, "queued": 1}
