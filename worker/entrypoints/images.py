"""``python -m worker.entrypoints.images``: one Celery worker for the images of batches, with its pool of children."""

from typing import Any

from celery import Celery

from shared import settings
from shared.bootstrap import Stores
from shared.queues import IMAGES
from worker.runtime.celery_tasks import Work, make_worker
from worker.runtime.celery_worker import run


def _pipeline(stores: Stores, detector: Any, owner: str) -> Work:
    from worker.images.pipeline import Pipeline  # noqa: PLC0415 -- in the child only

    return Pipeline(stores, detector, owner)


# Made at import, because a pool child is a fresh interpreter that imports this module to find its task.
app: Celery = make_worker(settings.read(), IMAGES, _pipeline)

if __name__ == "__main__":
    run(app, IMAGES, "worker.entrypoints.images", "worker")
