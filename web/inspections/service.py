"""Requesting inspections: known results are returned, pending inspections joined, and otherwise new ones queued."""

import time
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import Busy, NotFound, StoreAway
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.inspections.recipes import Describe
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import incoming_key
from web.http.problems import StoredProblem
from web.http.rate_limits import client_key
from web.inspections.requests import InspectionRequest
from web.services import Services

_RETRY_AFTER_S: Final = 5
_POLL_S: Final = 0.5
"""Interval of reading the job while waiting: its notification may be lost."""


@dataclass(frozen=True, slots=True)
class InspectionResult:
    """A finished inspection; ``id`` is the id of its result, which the addresses of its images contain."""

    job: Job
    id: str
    fields: dict[str, Any]


def request_inspection(services: Services, requested: InspectionRequest, client: str) -> Job | InspectionResult:
    """Return a result that is known and fresh; else make sure that the inspection is queued.

    :param client: address of the client whose limits a new inspection counts against.
    :returns: the result, or the pending job.
    :raises StoredProblem: the same inspection failed a moment ago.
    :raises Busy: the client's limits, or those of all clients together, are reached.
    :raises StoreAway: Redis does not respond and no result is known; or MongoDB or the blob store does not respond.
    :raises DiskFull: there is no space for an uploaded image.
    """
    job = jobs.find(services.db, recipes.job_id(requested.source, requested.recipe))
    if job is not None and job.pending:
        return job
    known = _outcome(services, job) if job is not None and job.fresh else None
    if known is not None:
        return known
    try:
        services.rate_limits.hit("inspection", client)
        if isinstance(requested.recipe, Describe) and requested.recipe.dream is not None:
            services.rate_limits.hit("dream", client)
    except StoreAway:
        known = _outcome(services, job) if job is not None and job.error is None else None
        if known is None:
            raise
        return known  # while Redis is unavailable nothing new is started, but known results are returned, however old
    inspect = services.settings.inspect
    if services.pending_inspections.get()["queued"] >= inspect.max_waiting:
        raise Busy("Too many inspections are waiting; retry later.", retry_after=_RETRY_AFTER_S)
    if jobs.has_pending(services.db, client_key(client), inspect.max_pending):
        raise Busy("Too many inspections from your address are not done yet; retry later.", retry_after=_RETRY_AFTER_S)
    if requested.data is not None:
        services.check_free_space(len(requested.data))
        services.blobs.write(incoming_key(recipes.job_id(requested.source, requested.recipe)), [requested.data])
    is_result_missing = job is not None and job.fresh  # it was deleted to free space for others
    job, queued = jobs.request(
        services.db,
        requested.source,
        requested.recipe,
        client_key(client),
        keep_s=inspect.keep_s,
        anew=is_result_missing,
    )
    if queued:
        services.wakeups[INSPECTIONS].publish()
    return job


def wait_for_result(services: Services, job: Job, seconds: float) -> Job | InspectionResult:
    """Wait for an inspection to end, unless too many threads wait already.

    :returns: the result, or the job if it is still pending.
    :raises StoredProblem: the inspection failed. :raises NotFound: it, or its result, has been deleted.
    """
    if job.pending and services.wait_slots.acquire(blocking=False):
        try:
            job = _wait_until_ended(services, job, seconds)
        finally:
            services.wait_slots.release()
    if job.pending:
        return job
    result = _outcome(services, job)
    if result is None:
        raise NotFound("The result of this inspection has been deleted; request it again.")
    return result


def _wait_until_ended(services: Services, job: Job, seconds: float) -> Job:
    deadline = time.monotonic() + seconds
    with services.notifications.expect(job.id) as ended:
        while job.pending and (left := deadline - time.monotonic()) > 0:  # job was read before the subscription
            ended.wait(min(left, _POLL_S))
            ended.clear()
            job = jobs.get(services.db, job.id)
    return job


def _outcome(services: Services, job: Job) -> InspectionResult | None:
    """Return the result of an ended inspection, or None if it has been deleted.

    :raises StoredProblem: the inspection failed.
    """
    if job.error is not None:
        raise StoredProblem(job.error, retry_after=max(1, round(job.fresh_for_s)))
    found = results.use(services.db, job.result) if job.result is not None else None
    return InspectionResult(job, found["_id"], found["fields"]) if found is not None else None
