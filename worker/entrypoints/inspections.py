"""``python -m worker.entrypoints.inspections``: one Celery worker for inspections, the only process that fetches what strangers name."""

from typing import Any

from celery import Celery

from shared import settings
from shared.bootstrap import Stores
from shared.queues import INSPECTIONS
from worker.runtime.celery_tasks import Work, make_worker
from worker.runtime.celery_worker import run


def _inspections(stores: Stores, detector: Any, owner: str) -> Work:
    from shared.fetch.client import Fetcher  # noqa: PLC0415 -- in the child only
    from worker.inspections.pipeline import Inspections  # noqa: PLC0415 -- as above

    return Inspections(stores, detector, Fetcher(stores.settings.fetch), owner)


# Made at import, because a pool child is a fresh interpreter that imports this module to find its task.
app: Celery = make_worker(settings.read(), INSPECTIONS, _inspections)

if __name__ == "__main__":
    run(app, INSPECTIONS, "worker.entrypoints.inspections", "inspector")
