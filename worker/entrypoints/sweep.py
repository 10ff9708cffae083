"""``python -m worker.entrypoints.sweep``: run the sweep.

Several sweep processes can run at once. They share the clean-ups of batches. Only the process that holds the lease in
MongoDB, the leader, does the other work.
"""

import signal
import threading

from shared import telemetry
from shared.bootstrap import open_stores
from shared.settings import read
from worker.sweep.sweep import Sweep


def main() -> None:
    """Run the sweep until SIGTERM or SIGINT."""
    settings = read()
    telemetry.configure(settings.log, "sweep")
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    sweep = Sweep(open_stores(settings, app="sweep"))
    while not stop.wait(settings.sweep.interval_s):
        sweep.tick()


if __name__ == "__main__":
    main()
