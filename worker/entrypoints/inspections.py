"""``python -m worker.entrypoints.inspections``: run a Celery worker that processes inspections.

Only this program fetches URLs that clients have sent.
"""

from typing import Any

from celery import Celery

from shared import settings
from shared.bootstrap import Stores
from shared.queues import INSPECTIONS
from worker.runtime.celery_tasks import Pipeline, make_worker_app
from worker.runtime.celery_worker import run


def _make_pipeline(stores: Stores, detector: Any, owner: str) -> Pipeline:
    from shared.fetch.client import Fetcher  # noqa: PLC0415 -- imported in the pool child only
    from worker.inspections.pipeline import InspectionPipeline  # noqa: PLC0415 -- imported in the pool child only

    return InspectionPipeline(stores, detector, Fetcher(stores.settings.fetch), owner)


# The app is built at import because a pool child is a new interpreter that imports this module to find its task.
app: Celery = make_worker_app(settings.read(), INSPECTIONS, _make_pipeline)

if __name__ == "__main__":
    run(app, INSPECTIONS, "worker.entrypoints.inspections", "inspector")
