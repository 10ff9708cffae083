"""Do jobs: claim one, do its parts one after the other, and record how it ended.

A job is done for some seconds and then released, so that jobs take turns. A job that must wait is released with a delay. After
an environment error, the delay grows each time. After any other error a job is released, too, but after a few of these in
succession it fails. A part that exceeds a time limit is such an error. Otherwise, a part that always takes too long would be
tried for ever.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from shared.bootstrap import Stores
from shared.errors import Environment, TooSlow
from shared.jobs import claims, progress
from shared.jobs.error_codes import failure
from shared.jobs.progress import HeldJob, JobLost
from shared.queue import pauses
from shared.queues import JOBS
from shared.storage.mongo import Db
from worker.jobs.kinds import KINDS
from worker.runtime.finished_work import FinishedWork
from worker.runtime.lease_keeper import LeaseKeeper

_log = logging.getLogger("shelfsight.error")
_FAILURE_DELAY_S: Final = 10.0


class JobPipeline:
    """Claims jobs and does them under one owner name. It is not thread-safe."""

    def __init__(self, stores: Stores, owner: str) -> None:
        """Start the thread that renews leases.

        :param owner: the owner name of the claims. No other pipeline must ever use the same name.
        """
        self._db: Db = stores.db
        self._wakeups = stores.wakeups
        self.finished = FinishedWork()
        self._owner, self._worker = owner, stores.settings.worker
        lease_s = self._worker.lease_s
        self._leases = LeaseKeeper(lambda leases: claims.renew(self._db, owner, leases, lease_s), lease_s, set_busy=self.finished.set_busy)

    def run(self, publish_wakeup: Callable[[], object], seconds: float) -> bool:  # noqa: ARG002 -- more workers would not make one job faster
        """Do jobs until none can be claimed, ``seconds`` have passed, or the queue is paused.

        A job that is held when the queue is paused is continued until the time is over, and then released.

        :param publish_wakeup: not used.
        :param seconds: the time in seconds after which no further part is begun.
        :returns: True if the time was over and a job can be claimed.
        :raises ShelfsightError: when no job could be claimed.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if pauses.is_paused(self._db, JOBS):
                return False
            claimed = claims.claim(self._db, self._owner, self._worker.lease_s)
            if claimed is None:
                return False
            self._do(HeldJob(self._owner, claimed), until)
        return claims.has_claimable(self._db)

    def stop(self) -> None:
        """Stop the thread. What is held was released, or will be when its lease expires."""
        self._leases.stop()

    def _do(self, job: HeldJob, until: float) -> None:
        """Do parts of a job until it ends or the time is over, and release it in the latter case or after an error."""
        self._leases.hold([job.lease], self._worker.hard_limit_s)
        try:
            wait_s = self._do_parts(job, until)
            if wait_s is not None:
                claims.release(self._db, self._owner, [job.lease], wait_s)
        except JobLost:
            _log.warning("job %s was lost, so this worker does not continue it", job.id)
        except Environment as error:
            _log.warning("job %s was released after an environment error: %s", job.id, error.code)
            self._release_after(job, error)
        except SoftTimeLimitExceeded:
            claims.release_after_failure(self._db, self._owner, job.lease, _FAILURE_DELAY_S, failure("time_limit"))
            raise
        except Exception:  # noqa: BLE001 -- after any error, release the job and go on
            _log.exception("job %s was released after an unexpected error", job.id)
            claims.release_after_failure(self._db, self._owner, job.lease, _FAILURE_DELAY_S, failure("internal_error"))
        except BaseException:  # the process stops
            self._release(job)
            raise
        finally:
            self._leases.drop([job.lease])

    def _do_parts(self, job: HeldJob, until: float) -> float | None:
        """Do parts of a job, and return the seconds after which another worker can continue it; None if it has ended."""
        kind = KINDS[job.document["kind"]]
        if job.document["total"] is None and not job.cursor and (total := kind.count(self._db, job)) is not None:
            job = progress.set_total(self._db, job, total)
        while True:
            if job.document.get("cancel_requested"):
                self._finish(job, "cancelled" if kind.has_more(self._db, job) else "done")
                return None
            step = kind.do_part(self._db, job)
            if step.error is not None or step.job is None:
                self._finish(job, "done" if step.error is None else "failed", step.error)
                return None
            job = step.job
            if step.wait_s:
                return step.wait_s
            if kind.feeds is not None:
                self._wakeups[kind.feeds].publish()
            if time.monotonic() >= until:
                return 0.0

    def _finish(self, job: HeldJob, status: str, error: dict[str, str] | None = None) -> None:
        if progress.finish(self._db, job, status, error):
            self.finished.add()

    def _release_after(self, job: HeldJob, error: Environment) -> None:
        try:
            if _is_too_slow(error):
                claims.release_after_failure(self._db, self._owner, job.lease, _FAILURE_DELAY_S, failure("time_limit"))
            else:
                claims.release_after_outage(self._db, self._owner, job.lease)
        except Environment:  # the lease will expire
            _log.warning("job %s could not be released", job.id)

    def _release(self, job: HeldJob) -> None:
        try:
            claims.release(self._db, self._owner, [job.lease])
        except Environment:  # the lease will expire
            _log.warning("job %s could not be released", job.id)


def _is_too_slow(error: Environment) -> bool:
    """Return whether MongoDB responds, but has needed too much time. ``mongo.deadline`` raises ``StoreAway`` then, too."""
    return isinstance(error, TooSlow) or isinstance(error.__cause__, TooSlow)
