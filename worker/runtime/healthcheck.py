"""``python -m worker.runtime.healthcheck``: see whether a worker of this host is at work; with ``--inspector`` one for inspections, with ``--sweep`` whether a sweep holds its lease.

For the health check of a container. Exit code 0 is yes; 1 comes with a sentence on standard error. Nothing that sees or moves
work is imported: it runs every few seconds, beside a worker that wants the processor.
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
    """Look once."""
    parser = argparse.ArgumentParser(prog="python -m worker.runtime.healthcheck", description="Exit code 0: it is at work. 1: it is not.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--inspector", action="store_true", help="ask for this host's inspector instead of its worker")
    which.add_argument("--sweep", action="store_true", help="ask for the sweep's lease instead of this host's worker")
    asked = parser.parse_args()
    database = read().mongo.model_copy(update={"socket_timeout_s": _LIMIT_S, "server_selection_timeout_s": _LIMIT_S})
    try:
        with pymongo.timeout(_LIMIT_S):
            db = connect(database, app="alive")
            if asked.sweep:
                missing = None if heartbeats.is_sweep_active(db) else "no sweep holds the lease"
            else:
                missing = _missing_worker(db, *((INSPECTIONS, "inspector") if asked.inspector else (IMAGES, "worker")))
    except ShelfsightError as error:
        sys.exit(f"error: {error.detail}")
    if missing:
        sys.exit(f"error: {missing}")


def _missing_worker(db: Db, work_queue: WorkQueue, name: str) -> str | None:
    host = socket.gethostname()
    if heartbeats.is_worker_alive(db, work_queue, host):
        return None
    if hindrance := heartbeats.find_impediment(db, work_queue, host):
        return f"the {name} of {host} cannot work ({hindrance}); its log says why"
    return f"no {name} of {host} was heard of for {heartbeats.WORKER_TIMEOUT_S} s"


if __name__ == "__main__":
    main()
