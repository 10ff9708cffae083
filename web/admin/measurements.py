"""Measures the work queues: what waits, how fast it is processed, and when it will be done."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.inspections import jobs as inspections
from shared.jobs import records
from shared.ledger import waiting_images
from shared.ledger.waiting_images import StoreWaiting
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS, JOBS, WorkQueue
from shared.storage.mongo import Db

MAX_AGE_S: Final = 3.0
"""Requests within this number of seconds get the same numbers. With 1,000,000 waiting images, measuring takes a third of a second."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured queue.

    ``waiting`` and ``running`` are numbers of images, inspections or jobs. ``oldest_age_s`` is how long the oldest one has
    waited. ``workers`` is the number of those that are alive and can work. ``rate_per_minute`` is what the workers have lately
    finished in a minute, and ``full_rate_per_minute`` what they finish in a minute in which all of them have work; None while
    that is unknown. ``by_store`` and ``stores_more`` are those of ``waiting_images``.
    """

    waiting: int
    running: int
    oldest_age_s: float
    workers: int
    rate_per_minute: float | None
    full_rate_per_minute: float | None
    by_store: Sequence[StoreWaiting] = ()
    stores_more: bool = False

    def eta_s(self, *, is_paused: bool) -> int | None:
        """Return in how many seconds what waits now will be finished, if the workers need as long for it as for what they did last.

        It is 0 if nothing waits, and None if it is unknown: the queue is paused, no worker can work, or none has finished
        anything for an hour.
        """
        if not self.waiting:
            return 0
        if is_paused or not self.workers or not self.full_rate_per_minute:
            return None
        left = max(self.waiting + self.running, self.workers)  # of fewer, each worker does one at most
        return math.ceil(60 * left / self.full_rate_per_minute)


def measure(db: Db) -> dict[WorkQueue, Measured]:
    """Measure all queues. Only what waits or is being processed is read.

    :raises StoreAway: when MongoDB does not respond in time.
    """
    images, pending_jobs, pending_inspections = waiting_images.measure(db), records.read_pending(db), inspections.count_pending(db)
    return {
        IMAGES: Measured(images.waiting, images.running, images.oldest_age_s, *_rates(db, IMAGES), images.by_store, images.stores_more),
        INSPECTIONS: Measured(
            pending_inspections["queued"], pending_inspections["processing"], inspections.oldest_queued_s(db), *_rates(db, INSPECTIONS)
        ),
        JOBS: Measured(pending_jobs.queued, pending_jobs.running, pending_jobs.oldest_queued_s, *_rates(db, JOBS)),
    }


def _rates(db: Db, queue: WorkQueue) -> tuple[int, float | None, float | None]:
    workers = heartbeats.list_live_workers(db, queue)
    return sum(worker.impediment is None for worker in workers), heartbeats.sum_rates(workers), heartbeats.estimate_rate(workers)
