"""``python -m worker.entrypoints.images``: run a Celery worker that processes the images of batches."""

from typing import Any

from celery import Celery

from shared import settings
from shared.bootstrap import Stores
from shared.queues import IMAGES
from worker.runtime.celery_tasks import Pipeline, make_worker_app
from worker.runtime.celery_worker import run


def _make_pipeline(stores: Stores, detector: Any, owner: str) -> Pipeline:
    from worker.images.pipeline import ImagePipeline  # noqa: PLC0415 -- imported in the pool child only

    return ImagePipeline(stores, detector, owner)


# The app is built at import because a pool child is a new interpreter that imports this module to find its task.
app: Celery = make_worker_app(settings.read(), IMAGES, _make_pipeline)

if __name__ == "__main__":
    run(app, IMAGES, "worker.entrypoints.images", "worker")
