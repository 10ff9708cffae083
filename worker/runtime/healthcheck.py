"""``python -m worker.runtime.healthcheck``: check that a worker of this host is working.

With ``--inspector`` it checks a worker for inspections, with ``--sweep`` that a sweep holds its lease.

For the health check of a container. Exit code 0 means healthy; 1 comes with a sentence on standard error. No module
that processes images or claims work is imported: the check runs every few seconds, beside a worker that needs the
processor.
"""

import argparse
import socket
import sys
from typing import Final

import pymongo

from shared.errors import ShelfsightError
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS, WorkQueue
from shared.settings import read
from shared.storage.mongo import Db, connect

_LIMIT_S: Final = 4.0


def main() -> None:
    """Check once, and exit."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.runtime.healthcheck", description="Exit code 0: healthy. 1: not healthy."
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--inspector", action="store_true", help="check this host's inspector instead of its worker")
    target.add_argument(
        "--sweep", action="store_true", help="check the lease of the sweep instead of this host's worker"
    )
    options = parser.parse_args()
    database = read().mongo.model_copy(update={"socket_timeout_s": _LIMIT_S, "server_selection_timeout_s": _LIMIT_S})
    try:
        with pymongo.timeout(_LIMIT_S):
            db = connect(database, app="alive")
            if options.sweep:
                problem = None if heartbeats.is_sweep_active(db) else "no sweep holds the lease"
            else:
                problem = _find_problem(db, *((INSPECTIONS, "inspector") if options.inspector else (IMAGES, "worker")))
    except ShelfsightError as error:
        sys.exit(f"error: {error.detail}")
    if problem:
        sys.exit(f"error: {problem}")


def _find_problem(db: Db, work_queue: WorkQueue, name: str) -> str | None:
    host = socket.gethostname()
    if heartbeats.is_worker_alive(db, work_queue, host):
        return None
    if impediment := heartbeats.find_impediment(db, work_queue, host):
        return f"the {name} of {host} cannot work ({impediment}); see its log"
    return f"no {name} of {host} has sent a heartbeat for {heartbeats.WORKER_TIMEOUT_S} s"


if __name__ == "__main__":
    main()
