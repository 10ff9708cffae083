"""What requests that queue a job have in common: the owner of the job, and the response."""

from flask import Response

from shared.jobs.records import JobOwner
from shared.queues import JOBS
from web.http import responses
from web.http.authentication import current_principal
from web.services import current_services


def current_owner() -> JobOwner:
    """Return the owner of a job that the current request queues."""
    principal = current_principal()
    return JobOwner(principal.account, principal.actor, principal.by, principal.stores)


def started(job_id: str) -> Response:
    """Publish a wakeup for a job that was queued, and return the response with its id."""
    services = current_services()
    services.submit(services.wakeups[JOBS].publish)
    response = responses.json_response({"job_id": job_id}, 202)
    response.headers["Location"] = f"/jobs/{job_id}"
    return response
