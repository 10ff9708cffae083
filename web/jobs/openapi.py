"""The OpenAPI description of jobs."""

from typing import Any, Final

from pydantic import BaseModel

from shared.jobs import records
from web.http.json_model import NoMembers
from web.http.openapi_components import (
    ID,
    JSON_BODY_CODES,
    job_started,
    json_content,
    paging_parameters,
    path_id,
    problem_responses,
    ref,
)
from web.jobs.schemas import Job, JobPage, JobStarted

MODELS: Final[tuple[type[BaseModel], ...]] = (Job, JobPage, JobStarted, NoMembers)
_CANCEL: Final = (
    "A running job ends after the part that it is doing. To cancel a job that processes images again needs images:write, and any other job "
    "tags:write. Images that the job has queued stay queued."
)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for jobs."""
    return {
        "/jobs": {"get": _list_jobs()},
        "/jobs/{job_id}": {"get": _get_job()},
        "/jobs/{job_id}/cancel": {
            "post": _change("cancelJob", "Cancel a job", {"200": json_content("The job", "Job")}, "job_finished") | {"description": _CANCEL}
        },
        "/jobs/{job_id}/undo": {
            "post": _change(
                "undoJob",
                f"Revert what a job has changed, within {records.UNDO_S // 3600} hours of its end, and nothing that was changed since",
                {"202": job_started("The job that reverts the changes was queued")},
                "job_unfinished", "already_undone", "not_undoable", "too_many_jobs",
            )
        },
    }  # fmt: skip


def _list_jobs() -> dict[str, Any]:
    return {
        "operationId": "listJobs",
        "summary": "List the jobs of one's account, newest first. Administrators of all stores see the jobs of all accounts.",
        "parameters": paging_parameters({"type": "string", "pattern": ID["job_id"]}),
        "responses": {"200": json_content("A page of jobs", "JobPage")} | problem_responses("invalid", "bad_cursor", "database_unavailable", "query_too_slow"),
    }


def _get_job() -> dict[str, Any]:
    return {
        "operationId": "getJob",
        "summary": f"Get a job. It is kept for {records.KEPT_S // 86400} days after its end.",
        "parameters": [path_id("job_id")],
        "responses": {"200": json_content("The job", "Job")} | problem_responses("not_found", "invalid", "database_unavailable"),
    }


def _change(operation_id: str, summary: str, success: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [path_id("job_id")],
        "requestBody": {"required": False, "content": {"application/json": {"schema": ref("NoMembers")}}},
        "responses": success | problem_responses(*JSON_BODY_CODES, "database_unavailable", "not_found", "foreign_store", *codes),
    }
