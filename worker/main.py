"""``python -m worker.main``: one Celery worker for the images of batches, with its pool of children."""

from typing import Any

from celery import Celery

from shared import settings
from shared.blobs import BlobStore
from shared.contract import BATCHES
from shared.mongo import Db
from worker.celery_main import run
from worker.tasks import Work, make_worker


def _pipeline(given: settings.Settings, db: Db, blobs: BlobStore, detector: Any, owner: str) -> Work:
    from worker.pipeline import Pipeline  # noqa: PLC0415 -- in the child only

    return Pipeline(given, db, blobs, detector, owner)


# Made at import, because a pool child is a fresh interpreter that imports this module to find its task.
app: Celery = make_worker(settings.read(), BATCHES, _pipeline)

if __name__ == "__main__":
    run(app, BATCHES, "worker.main", "worker")
