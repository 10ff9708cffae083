"""How a Celery worker runs, whatever its work."""

import argparse
import sys

from celery import Celery

from shared import settings, telemetry
from shared.queues import WorkQueue


def run(app: Celery, work_queue: WorkQueue, module: str, name: str) -> None:
    """Run until told to stop.

    :param module: what is run, as ``python -m`` names it.
    :param name: the worker's own by default.
    """
    log = settings.read().log
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--name", default=name, help="name of this worker in the logs (default: %(default)s)")
    given = parser.parse_args()
    telemetry.configure(log, given.name)
    app.worker_main(
        [
            "worker",
            f"--hostname={given.name}@%h",
            f"--queues={work_queue.name}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            f"--loglevel={log.level}",
        ]
    )
