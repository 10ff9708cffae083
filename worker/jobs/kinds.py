"""The kinds of jobs, and the functions that do them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.catalog import bulk_reprocessing, bulk_tags, bulk_undo
from shared.jobs.progress import HeldJob, Step
from shared.queues import IMAGES, WorkQueue
from shared.storage.mongo import Db


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of jobs.

    ``count`` returns the number of images that a job is about, or None if counting them takes too long. It is called when the
    job starts, unless its total is known. ``do_part`` does the next part of a job. ``has_more`` returns whether something is
    left to do in a job that is cancelled; otherwise, it is done. ``feeds`` is the work queue to which its parts add work.
    """

    count: Callable[[Db, HeldJob], int | None]
    do_part: Callable[[Db, HeldJob], Step]
    has_more: Callable[[Db, HeldJob], bool]
    feeds: WorkQueue | None = None


KINDS: Final[Mapping[str, Kind]] = {
    "bulk_tags": Kind(bulk_tags.count, bulk_tags.do_part, bulk_tags.has_more),
    "undo": Kind(lambda _db, job: int(job.document["total"]), bulk_undo.do_part, bulk_undo.has_more),  # the total is always known
    "reprocess": Kind(bulk_reprocessing.count, bulk_reprocessing.do_part, bulk_reprocessing.has_more, IMAGES),
}
