"""The work queues. Their messages carry no work: a wakeup says that there is something to claim in MongoDB."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """A Redis list for wakeups, and the Celery task that each wakeup starts; the task takes no arguments."""

    name: str
    task: str


IMAGES: Final = WorkQueue("shelfsight.bells", "shelfsight.work")
INSPECTIONS: Final = WorkQueue("shelfsight.inspections", "shelfsight.inspect")
"""A queue of its own, with workers of its own: an inspection does not wait behind the images of batches."""

QUEUES: Final = (IMAGES, INSPECTIONS)
