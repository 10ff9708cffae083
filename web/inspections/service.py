"""Request inspections and wait for their results.

If a fresh result is stored, it is returned. If the same inspection is already pending, the request waits for it.
Otherwise, a new inspection is queued.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import Busy, NotFound, QueuePaused
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.queue import pauses
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import incoming_key
from web.http.problems import StoredProblem
from web.inspections import quotas
from web.inspections.requests import InspectionRequest
from web.services import Services

_RETRY_AFTER_S: Final = 5
_PAUSED_RETRY_AFTER_S: Final = 60
_POLL_S: Final = 0.5
"""Interval at which a waiting thread reads the job, because the notification that the job has ended can be lost."""


@dataclass(frozen=True, slots=True)
class InspectionResult:
    """A finished inspection. ``id`` is the id of the result, which is part of the URLs of its images."""

    job: Job
    id: str
    fields: dict[str, Any]


def request_inspection(services: Services, requested: InspectionRequest) -> Job | InspectionResult:
    """Return the stored result of an inspection if it is fresh. Otherwise, make sure that the inspection is queued.

    A new inspection counts against the limits for the account or the client address of the current request. While Redis does
    not respond, a stored result is returned regardless of its age, because the inspectors wait for Redis.

    :returns: the result, or the pending job.
    :raises StoredProblem: when the same inspection failed recently.
    :raises QueuePaused: when a new inspection would be queued, and the queue is paused.
    :raises Busy: when the limits for the account or the address, or the limits for all together, are reached.
    :raises StoreAway: when MongoDB or the blob store does not respond.
    :raises DiskFull: when there is too little disk space for an uploaded image.
    """
    job = jobs.find(services.db, recipes.job_id(requested.source, requested.recipe))
    if job is not None and job.pending:
        return job
    known = _outcome(services, job) if job is not None and job.fresh else None
    if known is not None:
        return known
    if pauses.is_paused(services.db, INSPECTIONS):
        raise QueuePaused("No images are inspected now, because an administrator has paused this; retry later.", retry_after=_PAUSED_RETRY_AFTER_S)
    if not quotas.count(services, requested.recipe):
        known = _outcome(services, job) if job is not None and job.error is None else None
        if known is not None:
            return known
    inspect = services.settings.inspect
    if services.pending_inspections.get()["queued"] >= inspect.max_waiting:
        raise Busy("Too many inspections are waiting; retry later.", retry_after=_RETRY_AFTER_S)
    subject = quotas.subject(services)
    if jobs.has_pending(services.db, subject, inspect.max_pending):
        raise Busy("You have too many unfinished inspections; retry later.", retry_after=_RETRY_AFTER_S)
    if requested.data is not None:
        services.check_free_space(len(requested.data))
        services.blobs.write(incoming_key(recipes.job_id(requested.source, requested.recipe)), [requested.data])
    # The job is fresh but has no result if the result was deleted to free space for other results.
    is_result_missing = job is not None and job.fresh
    job, queued = jobs.request(
        services.db,
        requested.source,
        requested.recipe,
        subject,
        keep_s=inspect.keep_s,
        anew=is_result_missing,
    )
    if queued:
        services.wakeups[INSPECTIONS].publish()
    return job


def wait_for_result(services: Services, job: Job, seconds: float) -> Job | InspectionResult:
    """Wait until an inspection ends, but at most ``seconds`` seconds.

    Do not wait if too many threads are already waiting, or if the inspection is queued in a paused queue.

    :returns: the result, or the job if it is still pending.
    :raises StoredProblem: when the inspection failed.
    :raises NotFound: when the inspection or its result has been deleted.
    """
    is_held_up = job.status == "queued" and seconds > 0 and pauses.is_paused(services.db, INSPECTIONS)
    if job.pending and not is_held_up and services.wait_slots.acquire(blocking=False):
        try:
            job = _wait_until_ended(services, job, seconds)
        finally:
            services.wait_slots.release()
    if job.pending:
        return job
    result = _outcome(services, job)
    if result is None:
        raise NotFound("The result of this inspection has been deleted; repeat the inspection request.")
    return result


def _wait_until_ended(services: Services, job: Job, seconds: float) -> Job:
    deadline = time.monotonic() + seconds
    with services.notifications.expect(job.id) as ended:
        # Wait at most _POLL_S before reading the job, because no notification arrives if the job ended before the
        # subscription.
        while job.pending and (left := deadline - time.monotonic()) > 0:
            ended.wait(min(left, _POLL_S))
            ended.clear()
            job = jobs.get(services.db, job.id)
    return job


def _outcome(services: Services, job: Job) -> InspectionResult | None:
    """Return the result of an ended inspection, or None if the result has been deleted.

    :raises StoredProblem: when the inspection failed.
    """
    if job.error is not None:
        raise StoredProblem(job.error, retry_after=max(1, round(job.fresh_for_s)))
    found = results.use(services.db, job.result) if job.result is not None else None
    return InspectionResult(job, found["_id"], found["fields"]) if found is not None else None
