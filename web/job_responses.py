"""Wake the worker for a job that a request has queued, and answer the request."""

from flask import Response

from shared.queues import JOBS
from web.http import responses
from web.services import current_services


def started(job_id: str) -> Response:
    """Publish a wakeup for a job that was queued, and return the response with its id."""
    services = current_services()
    services.submit(services.wakeups[JOBS].publish)
    response = responses.json_response({"job_id": job_id}, 202)
    response.headers["Location"] = f"/jobs/{job_id}"
    return response
