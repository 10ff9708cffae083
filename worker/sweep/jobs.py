"""Repair jobs: requeue those whose worker has died, replace lost wakeups, and settle parts of jobs that have ended."""

import logging
from typing import Final

from shared.bootstrap import Stores
from shared.catalog import bulk_parts, bulk_reprocessing
from shared.errors import ShelfsightError
from shared.jobs import claims, progress
from shared.queue import pauses
from shared.queues import JOBS

_EXPIRE_S: Final = 0.5
"""Maximum seconds in a tick to wait for a job that a transaction keeps locked."""
_UNSETTLED_AT_ONCE: Final = 5
_log = logging.getLogger("shelfsight.error")


def repair(stores: Stores) -> bool:
    """Requeue jobs with expired leases, or let them fail, and publish a wakeup if a job can be claimed and none waits.

    A part of a job that has ended before its part has is settled (``settle_ended`` of its kind).

    :returns: whether a job was requeued, has failed, or was settled.
    """
    wakeups = stores.wakeups[JOBS]
    if claims.has_claimable(stores.db) and not pauses.is_paused(stores.db, JOBS) and wakeups.count_waiting() == 0:
        wakeups.publish()
    expired = claims.expire_leases(stores.db, _EXPIRE_S)
    if expired:
        _log.warning("sweep: the leases of %d jobs had expired", expired)
    return _settle(stores) or bool(expired)


def _settle(stores: Stores) -> bool:
    settled = False
    for job in progress.find_unsettled(stores.db, _UNSETTLED_AT_ONCE):
        settle = bulk_reprocessing.settle_ended if job["kind"] == "reprocess" else bulk_parts.settle_ended
        try:
            settled |= settle(stores.db, job["_id"])
        except ShelfsightError as error:
            _log.warning("sweep: the last part of job %s was not settled: %s: %s", job["_id"], error.code, error.detail)
    return settled
