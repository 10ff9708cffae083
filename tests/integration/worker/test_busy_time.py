"""Pipelines count the seconds in which they hold work, and no others."""

import hashlib
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from shared import settings
from shared.inspections import recipes
from shared.inspections.recipes import Describe, Source
from shared.settings import Settings
from shared.storage.blob_keys import incoming_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.shared.jobs.requesting import request_job
from tests.integration.worker.inspections.inspecting import Inspector
from tests.integration.worker.jobs.tagging import make_worker
from tests.integration.worker.running import run, upload_images
from tests.support.web_client import make_image
from worker.images.pipeline import ImagePipeline
from worker.runtime.finished_work import FinishedWork
from worker.vision.detection.detect import Detector

pytestmark = pytest.mark.slow


def check(finished: FinishedWork, count: int) -> None:
    """Check what was finished, and that the pipeline has been busy and is not any more."""
    counted, busy_s = finished.read_busy()
    assert counted == count
    assert 0 < busy_s < finished.read()[1]
    assert finished.read_busy() == (count, busy_s)


def test_the_busy_time_with_images(web: FlaskClient, db: Db, pipeline: ImagePipeline) -> None:
    run(pipeline)
    assert pipeline.finished.read_busy() == (0, 0)
    upload_images(web, db, 3)
    run(pipeline)
    check(pipeline.finished, 3)


def test_the_busy_time_with_inspections(worker_settings: Settings, db: Db, blobs: LocalBlobs, detector: Detector) -> None:
    inspector = Inspector(worker_settings, db, blobs, detector)
    data = make_image(1)
    source = Source(sha256=hashlib.sha256(data).hexdigest())
    blobs.write(incoming_key(recipes.job_id(source, Describe())), [data])
    try:
        inspector.pipeline.run(lambda: None, 60)
        assert inspector.pipeline.finished.read_busy() == (0, 0)
        inspector.request(source, Describe())
        inspector.pipeline.run(lambda: None, 60)
        check(inspector.pipeline.finished, 1)
    finally:
        inspector.pipeline.stop()


def test_the_busy_time_with_jobs(db: Db, mongo: settings.Mongo, blobs_root: Path) -> None:
    worker = make_worker(db, mongo, blobs_root)
    try:
        worker.run(lambda: None, 60)
        assert worker.finished.read_busy() == (0, 0)
        request_job(db)
        worker.run(lambda: None, 60)
        check(worker.finished, 1)
    finally:
        worker.stop()
