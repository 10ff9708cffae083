"""Asking for an inspection: what is known is given, what is being made is waited for, and only what is neither is asked for anew."""

import time
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import Busy, NotFound, StoreAway
from shared.inspections import jobs, recipes, results
from shared.inspections.jobs import Job
from shared.inspections.recipes import Describe
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import incoming_key
from web.http.problems import Retold
from web.http.rate_limits import party
from web.inspections.requests import Asked
from web.services import Services

_PATIENCE_S: Final = 5
_LOOK_AGAIN_S: Final = 0.5
"""Should the news that it has ended be lost."""


@dataclass(frozen=True, slots=True)
class Made:
    """An inspection that is done, with what it found and the name under which its pictures lie."""

    job: Job
    result: str
    fields: dict[str, Any]


def ask(services: Services, asked: Asked, client: str) -> Job | Made:
    """Give an answer that is there and fresh, or see to it that one is being made.

    :param client: on whose account it goes if it has to be made.
    :returns: what was made; or the job, which is pending.
    :raises ShelfsightError: what the inspection came to, if it failed a moment ago; or it cannot be asked for now.
    """
    job = jobs.find(services.db, recipes.job_id(asked.source, asked.recipe))
    if job is not None and job.pending:
        return job
    known = _outcome(services, job) if job is not None and job.fresh else None
    if known is not None:
        return known
    try:
        services.rates.take("inspection", client)
        if isinstance(asked.recipe, Describe) and asked.recipe.dream is not None:
            services.rates.take("dream", client)
    except StoreAway:
        known = _outcome(services, job) if job is not None and job.error is None else None
        if known is None:
            raise
        return known  # nothing new while Redis is away, but what is known, however old
    inspect = services.settings.inspect
    if services.pending.get()["queued"] >= inspect.max_waiting:
        raise Busy("Too many inspections wait; try again in a moment.", retry_after=_PATIENCE_S)
    if jobs.has_pending(services.db, party(client), inspect.max_pending):
        raise Busy("Too many inspections that you began are not done yet; try again in a moment.", retry_after=_PATIENCE_S)
    if asked.data is not None:
        services.check_room(len(asked.data))
        services.blobs.write(incoming_key(recipes.job_id(asked.source, asked.recipe)), [asked.data])
    lost = job is not None and job.fresh  # then its pictures have made room for others
    job, queued = jobs.request(services.db, asked.source, asked.recipe, party(client), keep_s=inspect.keep_s, anew=lost)
    if queued:
        services.wakeups[INSPECTIONS].publish()
    return job


def wait(services: Services, job: Job, seconds: float) -> Job | Made:
    """Wait for an inspection to end; not at all when as many wait as may.

    :returns: what was made; or the job, if it is still pending.
    :raises ShelfsightError: what it came to, if it failed. :raises NotFound: it, or what it made, has been removed.
    """
    if job.pending and services.waiters.acquire(blocking=False):
        try:
            job = _await(services, job, seconds)
        finally:
            services.waiters.release()
    if job.pending:
        return job
    made = _outcome(services, job)
    if made is None:
        raise NotFound("What this inspection made is no longer kept: ask for it again.")
    return made


def _await(services: Services, job: Job, seconds: float) -> Job:
    until = time.monotonic() + seconds
    with services.notifications.expect(job.id) as ended:
        while job.pending and (left := until - time.monotonic()) > 0:  # it was so a moment ago
            ended.wait(min(left, _LOOK_AGAIN_S))
            ended.clear()
            job = jobs.get(services.db, job.id)
    return job


def _outcome(services: Services, job: Job) -> Made | None:
    """Give what an ended inspection made; None where that is no longer there.

    :raises Retold: it failed.
    """
    if job.error is not None:
        raise Retold(job.error, retry_after=max(1, round(job.fresh_for_s)))
    found = results.use(services.db, job.result) if job.result is not None else None
    return Made(job, found["_id"], found["fields"]) if found is not None else None
