"""``python -m worker.runtime.healthcheck``: check that a worker on this host can work.

With ``--inspector``, check that an inspector on this host can work. With ``--jobs``, check that a worker for jobs on this
host can work. With ``--sweep``, check that a sweep process holds the lease of the sweep.

Containers use this program as their health check. Exit code 0 means healthy. Exit code 1 means not healthy, and a
sentence on standard error gives the reason. This module imports no code that processes images or claims work, because
the check runs every few seconds and shares the CPU with a worker.
"""

import argparse
import socket
import sys
from typing import Final

import pymongo

from shared.errors import ShelfsightError
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS, JOBS, WorkQueue
from shared.settings import read
from shared.storage.mongo import Db, connect

_LIMIT_S: Final = 4.0


def main() -> None:
    """Run the check once. Exit with code 1 if it fails."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.runtime.healthcheck",
        description="Check that a worker on this host can work. Exit code 0: healthy. Exit code 1: not healthy.",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--inspector", action="store_true", help="check the inspector on this host instead")
    target.add_argument("--jobs", action="store_true", help="check the worker for jobs on this host instead")
    target.add_argument("--sweep", action="store_true", help="check instead that a sweep process holds its lease")
    options = parser.parse_args()
    database = read().mongo.model_copy(update={"socket_timeout_s": _LIMIT_S, "server_selection_timeout_s": _LIMIT_S})
    try:
        with pymongo.timeout(_LIMIT_S):
            db = connect(database, app="healthcheck")
            if options.sweep:
                problem = None if heartbeats.is_sweep_active(db) else "no sweep holds its lease; see the sweep's log"
            else:
                queues = ((options.inspector, INSPECTIONS, "inspector"), (options.jobs, JOBS, "worker for jobs"))
                problem = _find_problem(db, *next(((queue, name) for chosen, queue, name in queues if chosen), (IMAGES, "worker")))
    except ShelfsightError as error:
        sys.exit(f"error: {error.detail}")
    if problem:
        sys.exit(f"error: {problem}")


def _find_problem(db: Db, work_queue: WorkQueue, name: str) -> str | None:
    host = socket.gethostname()
    if heartbeats.is_worker_alive(db, work_queue, host):
        return None
    if impediment := heartbeats.find_impediment(db, work_queue, host):
        return f"the {name} on {host} cannot work ({impediment}); see its log"
    return f"no {name} on {host} has sent a heartbeat in the last {heartbeats.WORKER_TIMEOUT_S} s; see its log"


if __name__ == "__main__":
    main()
