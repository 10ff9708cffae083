"""The work queues.

A message in a work queue is a wakeup. It describes no work; it only reports that MongoDB holds work to claim.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """A work queue: the Redis list that holds the wakeups, and the Celery task that a wakeup starts.

    The task takes no arguments. ``label`` is the name of the queue in the API, in metrics and in the
    collection ``queues``; heartbeats have ``name``.
    """

    name: str
    task: str
    label: str


IMAGES: Final = WorkQueue("shelfsight.bells", "shelfsight.work", "images")
INSPECTIONS: Final = WorkQueue("shelfsight.inspections", "shelfsight.inspect", "inspections")
"""Inspections have their own queue and their own workers, so they do not wait for the images of batches."""

JOBS: Final = WorkQueue("shelfsight.jobs", "shelfsight.job", "jobs")
"""Jobs, such as tagging many images, have their own queue and their own worker, which loads no model."""

QUEUES: Final = (IMAGES, INSPECTIONS, JOBS)
