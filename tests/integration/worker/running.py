"""Helpers for the worker tests: upload a batch, create and run a pipeline, and count images by state."""

import time
from typing import Any

from flask.testing import FlaskClient

from shared.bootstrap import open_stores
from shared.settings import Settings
from shared.storage.blobs import BlobStore
from shared.storage.mongo import Db
from tests.support.web_client import image_payload, make_image, post_batch
from worker.images.pipeline import ImagePipeline
from worker.vision.detection.detect import Detector

_FORMATS = ("PNG", "JPEG")


class Killed(BaseException):
    """Stands for the end of the process at this point."""


def upload(web: FlaskClient, db: Db, body: Any) -> Any:
    """Post a batch, and return the response body once the batch is claimable.

    A batch is claimable when its store has a turn. A thread of the web process creates the turn after the response.
    """
    batch = post_batch(web, body).get_json()
    deadline = time.monotonic() + 120
    while db.account_turns.find_one({"pending": True}) is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return batch


def upload_images(web: FlaskClient, db: Db, number: int) -> Any:
    """Post a batch of ``number`` small images in turns of PNG and JPEG, without augmentations; see ``upload``."""
    images = [image_payload(make_image(at, (64, 48), _FORMATS[at % 2])) for at in range(number)]
    return upload(web, db, {"images": images, "augmentations": []})


def run(pipeline: ImagePipeline) -> None:
    """Process images until none is claimable."""
    pipeline.run(lambda: None, 600)


def run_at_once(pipeline: ImagePipeline, db: Db) -> None:
    """Process the images, without waiting until their delays have passed."""
    db.images.update_many({}, [{"$set": {"work.not_before": "$created_at"}}])
    run(pipeline)


def count(db: Db) -> dict[str, int]:
    """Return the number of images in each state."""
    groups = db.images.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
    return {group["_id"]: group["n"] for group in groups}


def make_pipeline(worker_settings: Settings, db: Db, blobs: BlobStore, detector: Detector, owner: str) -> ImagePipeline:
    """Return a new pipeline that uses these stores. The caller must stop it."""
    return ImagePipeline(open_stores(worker_settings, app="test", db=db, blobs=blobs), detector, owner)


def with_many_threads(worker_settings: Settings) -> Settings:
    """Return settings with so many threads that threads which a test blocks do not delay other images."""
    return worker_settings.model_copy(update={"vision": worker_settings.vision.model_copy(update={"threads": 15})})


def with_turns(worker_settings: Settings, *, in_turn: bool = True) -> Settings:
    """Return settings with one thread, which takes turns with the model if ``in_turn`` is true."""
    return worker_settings.model_copy(
        update={"vision": worker_settings.vision.model_copy(update={"threads": 1, "in_turn": in_turn})}
    )
