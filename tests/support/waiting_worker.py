"""``python -m tests.support.waiting_worker``: a real Celery worker whose tasks wait until a file exists.

The file ``started`` in the folder ``WAITING_WORKER`` has one line for each task that has begun. A task ends when the file
``end`` exists.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

from shared import settings
from shared.bootstrap import Stores
from shared.queues import IMAGES
from worker.runtime.celery_tasks import Pipeline, make_worker_app
from worker.runtime.celery_worker import run
from worker.runtime.finished_work import FinishedWork

_FOLDER = Path(os.environ["WAITING_WORKER"])


class WaitingPipeline:
    """Waits instead of processing images."""

    def __init__(self) -> None:
        self.finished = FinishedWork()

    def run(self, _publish_wakeup: Callable[[], object], seconds: float) -> bool:
        """Wait until the file ``end`` exists."""
        with (_FOLDER / "started").open("a") as file:
            file.write("task\n")
        until = time.monotonic() + seconds
        while time.monotonic() < until and not (_FOLDER / "end").exists():
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """Do nothing, because it has neither threads nor processes."""


def _make_pipeline(_stores: Stores, _detector: Any, _owner: str) -> Pipeline:
    return WaitingPipeline()


app: Celery = make_worker_app(settings.read(), IMAGES, _make_pipeline)

if __name__ == "__main__":
    run(app, IMAGES, "tests.support.waiting_worker", "waiting")
