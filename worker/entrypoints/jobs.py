"""``python -m worker.entrypoints.jobs``: run a Celery worker that does jobs, such as tagging many images.

Jobs only read and write MongoDB. So one pool child is enough, and it does not import torch.
"""

from typing import Any

from celery import Celery

from shared import settings
from shared.bootstrap import Stores
from shared.queues import JOBS
from worker.runtime.celery_tasks import Pipeline, make_worker_app
from worker.runtime.celery_worker import run


def _make_pipeline(stores: Stores, _detector: Any, owner: str) -> Pipeline:
    from worker.jobs.pipeline import JobPipeline  # noqa: PLC0415 -- imported in the pool child only

    return JobPipeline(stores, owner)


# The app is built at import because a pool child is a new interpreter that imports this module to find its task.
app: Celery = make_worker_app(settings.read(), JOBS, _make_pipeline, needs_detector=False)
app.conf.worker_concurrency = 1  # WORKER_PROCESSES is for the workers that process images

if __name__ == "__main__":
    run(app, JOBS, "worker.entrypoints.jobs", "jobs")
