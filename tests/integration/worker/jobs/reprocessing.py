"""Helpers for the tests of jobs that process images again: request one, process images, and count how often each was queued."""

from collections import Counter
from typing import Any

from shared.catalog import bulk_reprocessing
from shared.catalog.bulk_reprocessing import BulkReprocessing
from shared.jobs.records import JobOwner
from shared.ledger import claims, closing, reprocessing, results
from shared.ledger.filters import Filters
from shared.ledger.reprocessing import Options
from shared.storage.mongo import Db
from tests.integration.worker.jobs.tagging import OWNER, make_images
from tests.support.ledger import failed_results, process_all, successful_results

LOW = Options(priority="low")


def make_done(db: Db, count: int, store: str = "north", **fields: Any) -> list[str]:
    """Commit images of a store and process them, and return their ids in ascending order."""
    ids = make_images(db, count, store, **fields)
    process_all(db, size=250)
    return ids


def fail_all(db: Db, code: str = "corrupt", **fields: Any) -> list[str]:
    """Let all images that wait fail, and return their ids."""
    ids: list[str] = []
    while (claim := claims.claim(db, "failing", 250, 60)).images:
        results.finish(db, "failing", failed_results(claim, code))
        closing.close_batches(db, {image["batch_id"] for image in claim.images})
        ids += [image["_id"] for image in claim.images]
    return sorted(ids)


def process(db: Db, **fields: Any) -> None:
    """Process all images that wait, with a result that has these fields."""
    while (claim := claims.claim(db, "worker", 250, 60)).images:
        results.finish(db, "worker", successful_results(claim, **fields))
        closing.close_batches(db, {image["batch_id"] for image in claim.images})


def start_reprocessing(
    db: Db, filters: Filters | None = None, only: str = "all", options: Options = LOW, owner: JobOwner = OWNER, **further: Any
) -> str:
    """Request a job, by default for all images that were committed until now, and return its id."""
    return bulk_reprocessing.request(db, BulkReprocessing(filters or Filters(), only, options, **further), owner)


def times_queued(db: Db, job_id: str | None = None) -> dict[str, int]:
    """Return how often a job, or anybody, has queued each image again that was queued at all, according to the timelines."""
    found: Counter[str] = Counter()
    for image in db.images.find({"history.requests": {"$exists": True}}, {"history": 1}):
        requests = image["history"]["requests"]
        assert len(requests) == image["history"]["requested"]
        found[image["_id"]] += sum(request["kind"] == "reprocess" and job_id in {None, request.get("job")} for request in requests)
    return {name: times for name, times in found.items() if times}


def complete_marks(db: Db) -> None:
    """Do what the sweep does for reprocessings that were interrupted."""
    reprocessing.complete(db, reprocessing.find_marked(db, 1000))
