"""``python -m worker.main``: one Celery worker with its pool of children."""

import argparse

from celery import Celery

from shared import settings, telemetry
from shared.contract import BELL_QUEUE
from worker.tasks import make_worker

# Made at import, because a pool child is a fresh interpreter that imports this module to find its task.
app: Celery = make_worker(settings.read())


def main() -> None:
    """Run until told to stop."""
    log = settings.read().log
    parser = argparse.ArgumentParser(prog="python -m worker.main", description=__doc__)
    parser.add_argument("--name", default="worker", help="name of this worker in the logs (default: %(default)s)")
    given = parser.parse_args()
    telemetry.configure(log, given.name)
    app.worker_main(
        [
            "worker",
            f"--hostname={given.name}@%h",
            f"--queues={BELL_QUEUE}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            f"--loglevel={log.level}",
        ]
    )


if __name__ == "__main__":
    main()
