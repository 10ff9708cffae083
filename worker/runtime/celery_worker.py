"""The command line of a Celery worker. It is the same for every work queue."""

import argparse
import sys

from celery import Celery

from shared import settings, telemetry
from shared.queues import WorkQueue


def run(app: Celery, work_queue: WorkQueue, module: str, name: str) -> None:
    """Run a Celery worker until a signal stops it.

    :param module: the name of the module that ``python -m`` runs, for the help text.
    :param name: the worker's name if the command line does not set one.
    """
    log = settings.read().log
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--name", default=name, help="the name of this worker in the logs (default: %(default)s)")
    options = parser.parse_args()
    telemetry.configure(log, options.name)
    app.worker_main(
        [
            "worker",
            f"--hostname={options.name}@%h",
            f"--queues={work_queue.name}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            f"--loglevel={log.level}",
        ]
    )
