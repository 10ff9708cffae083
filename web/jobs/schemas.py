"""The pydantic models for requests and responses about jobs. OpenAPI is generated from them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from shared.jobs.error_codes import FAILURES, OMISSIONS

_CODES = f"Why a job failed: {', '.join(FAILURES)}. What it has left out: {', '.join(OMISSIONS)}."


class JobError(BaseModel):
    """Why a job failed, or what it has left out."""

    code: str = Field(description=_CODES)
    detail: str


class Job(BaseModel):
    """A job.

    ``total`` is the number of images that it is about, or null while that is unknown. ``done`` is the number of those that it has
    handled, and ``changed`` of those that it has changed. A running job for which ``cancel_requested`` is true
    ends after the part that it is doing. ``undo_until`` is null if it cannot be undone or has changed nothing, and ``undone_by``
    is the id of the job that undoes it.
    """

    id: str
    kind: Literal["bulk_tags", "undo", "reprocess"]
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    total: int | None
    done: int
    changed: int
    errors: list[JobError]
    created_at: datetime
    cancel_requested: bool
    finished_at: datetime | None
    undo_until: datetime | None
    undone_by: str | None


class JobPage(BaseModel):
    """A page of a list of jobs, the newest first."""

    jobs: list[Job]
    next_cursor: str | None


class JobStarted(BaseModel):
    """The id of a job that was queued."""

    job_id: str
