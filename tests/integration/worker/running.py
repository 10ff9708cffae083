"""Helpers of the worker tests: upload a batch, run a pipeline, count images by state."""

import time
from typing import Any

from flask.testing import FlaskClient

from shared.bootstrap import open_stores
from shared.settings import Settings
from shared.storage.blobs import BlobStore
from shared.storage.mongo import Db
from tests.support.web_client import post_batch
from worker.images.pipeline import ImagePipeline
from worker.vision.detection.detect import Detector


def upload(web: FlaskClient, db: Db, body: Any) -> Any:
    """Post a batch, and wait until its store has a turn, which a thread of the web process gives it after the response."""
    batch = post_batch(web, body).get_json()
    deadline = time.monotonic() + 120
    while db.turns.find_one({"pending": True}) is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return batch


def run(pipeline: ImagePipeline) -> None:
    """Process everything that is claimable."""
    pipeline.run(lambda: None, 600)


def count(db: Db) -> dict[str, int]:
    """Count the images by state."""
    groups = db.images.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
    return {group["_id"]: group["n"] for group in groups}


def make_pipeline(worker_settings: Settings, db: Db, blobs: BlobStore, detector: Detector, owner: str) -> ImagePipeline:
    """Return a pipeline over these stores; the caller stops it."""
    return ImagePipeline(open_stores(worker_settings, app="test", db=db, blobs=blobs), detector, owner)
