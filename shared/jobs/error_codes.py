"""The errors of jobs: why a job failed, and what it has left out. The codes are stable."""

from collections.abc import Mapping
from typing import Final

FAILURES: Final[Mapping[str, str]] = {
    "rights_lost": "Whoever requested the job may no longer change images in any of its stores.",
    "rights_reduced": "The rights of whoever requested the undo were reduced, so the rest was left; another undo continues after it.",
    "tag_deleted": "All tags of the job, or the tag by which it chooses images, were deleted before it ended.",
    "worker_died": "The process that did the job ended several times before it had done the next part.",
    "time_limit": "A part of the job exceeded the time limit several times.",
    "internal_error": "The job failed because of a defect of the service. The operator finds the reason in the log of the worker for jobs.",
}
"""Why a job failed: the sentence of each code."""
OMISSIONS: Final[Mapping[str, str]] = {
    "rights_reduced": "The rights of whoever requested the job were reduced, so images of some stores were left as they were.",
    "too_many_image_tags": "Number of images that were left as they were, because they would have too many tags: {count:,}.",
    "foreign_store": "Number of images that were left as they were, because their batches also have images of other stores: {count:,}.",
    "not_finished": "Number of images that were left as they were, because they were waiting or being processed: {count:,}.",
    "batch_busy": "Number of images that were left as they were, because their batches were being cancelled, or other requests were changing them at that moment: {count:,}.",
}
"""What a job that did not fail has left out."""


def failure(code: str) -> dict[str, str]:
    """Return the error with one of the codes of ``FAILURES``, as ``{code, detail}``."""
    return {"code": code, "detail": FAILURES[code]}


def omission(code: str, count: int = 0) -> dict[str, str]:
    """Return the error with one of the codes of ``OMISSIONS``, as ``{code, detail}``."""
    return {"code": code, "detail": OMISSIONS[code].format(count=count)}
