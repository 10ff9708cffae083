"""The time limits of an attempt to process an inspection: each step has a limit, and waiting in line has another one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Semaphore

from shared.errors import Environment
from shared.inspections import jobs
from shared.inspections.jobs import Job
from worker.runtime.lease_keeper import LeaseKeeper


class Attempt:
    """An inspection that this process has claimed.

    Its lease is renewed while it waits for its turn, and during each step until the time limit of the step. So an
    inspection that waits for a long time does not count as one that hangs.
    """

    def __init__(self, job: Job, leases: LeaseKeeper, step_limit_s: float) -> None:
        """Start to renew the lease. The first step begins.

        :param step_limit_s: time limit of a step in seconds. After that time, the lease keeper reports the lease.
        """
        self.job = job
        self._leases, self._step_limit_s = leases, step_limit_s
        self._began = time.monotonic()
        leases.hold([job.lease], step_limit_s)

    @property
    def age_s(self) -> float:
        """Seconds since the inspection was requested, or since its queue was resumed after that."""
        return self.job.age_s + time.monotonic() - self._began

    @contextmanager
    def turn(self, places: Semaphore, step_limit_s: float | None = None) -> Iterator[None]:
        """Wait for one of the places, and occupy it during a step. After the step, another step begins.

        :param step_limit_s: time limit of the step in seconds, if it differs from that of the other steps.
        :raises Environment: when the inspection has got no place, and ``age_s`` is ``jobs.MAX_WAIT_S`` or more.
        """
        self._leases.limit(self.job.lease, None)
        if not places.acquire(timeout=max(0.0, jobs.MAX_WAIT_S - self.age_s)):
            raise Environment(jobs.NOT_IN_TIME)
        try:
            self._leases.limit(self.job.lease, step_limit_s or self._step_limit_s)
            yield
        finally:
            places.release()
            self._leases.limit(self.job.lease, self._step_limit_s)
