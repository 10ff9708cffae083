"""What the tests of the worker do to it."""

import time
from typing import Any

from flask.testing import FlaskClient

from shared.storage.mongo import Db
from tests.support.web_client import post_batch
from worker.images.pipeline import Pipeline


def upload(web: FlaskClient, db: Db, body: Any) -> Any:
    """Post a batch and wait until its store has a turn, which a thread of the web gives it after the answer."""
    said = post_batch(web, body).get_json()
    until = time.monotonic() + 120
    while db.turns.find_one({"pending": True}) is None:
        assert time.monotonic() < until
        time.sleep(0.002)
    return said


def run(pipeline: Pipeline) -> None:
    pipeline.work_off(lambda: None, 600)


def count(db: Db) -> dict[str, int]:
    groups = db.images.aggregate([{"$group": {"_id": "$status", "n": {"$sum": 1}}}])
    return {group["_id"]: group["n"] for group in groups}
