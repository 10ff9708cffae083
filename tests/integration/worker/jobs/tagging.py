"""Helpers for the tests of bulk tagging: request it, let a worker do jobs, and compare the tags of all images with an oracle."""

from collections import Counter
from pathlib import Path

from shared import settings
from shared.allowed_stores import AllowedStores
from shared.bootstrap import open_stores
from shared.catalog import bulk_tags
from shared.catalog.bulk_tags import BulkRequest
from shared.catalog.tag_names import TagNames
from shared.ids import image_id
from shared.jobs import records, undo
from shared.jobs.records import ALL_JOBS, JobAccess, JobOwner
from shared.ledger.filters import Filters
from shared.storage.mongo import Db, Document
from tests.support.ledger import commit_new_batch
from worker.jobs.pipeline import JobPipeline

OWNER = JobOwner("open", "open", "anna", None)


def make_images(db: Db, count: int, store: str = "north", **fields: object) -> list[str]:
    """Commit batches with ``count`` images of a store, and return the ids of the images in ascending order."""
    ids: list[str] = []
    while len(ids) < count:
        size = min(500, count - len(ids))
        batch_id = commit_new_batch(db, size, store, **fields)
        ids += [image_id(batch_id, n) for n in range(size)]
    return ids


def start_job(
    db: Db, *add: str, remove: tuple[str, ...] = (), filters: Filters | None = None, ids: tuple[str, ...] | None = None, owner: JobOwner = OWNER
) -> str:
    """Request bulk tagging, by default of all images that were committed until now, and return the id of the job."""
    chosen = (filters or Filters()) if ids is None else None
    result = bulk_tags.tag_images(db, BulkRequest(ids, chosen, add, remove), owner)
    assert isinstance(result, str), result
    return result


def tag_now(db: Db, ids: list[str], *add: str, remove: tuple[str, ...] = (), owner: JobOwner = OWNER) -> bulk_tags.Tagged:
    """Tag some images in the request, and return what it answers."""
    result = bulk_tags.tag_images(db, BulkRequest(tuple(ids), None, add, remove), owner)
    assert isinstance(result, bulk_tags.Tagged), result
    return result


def start_undo(db: Db, job_id: str, owner: JobOwner = OWNER) -> str:
    """Request the undo of a job of any account, and return the id of the new job."""
    return str(undo.request(db, job_id, JobAccess(None, owner.stores), owner)["_id"])


def make_worker(db: Db, mongo: settings.Mongo, blobs_root: Path, owner: str = "worker-a") -> JobPipeline:
    """Return a pipeline that does jobs in this process. Redis is unreachable."""
    configuration = settings.Settings(mongo=mongo, blobs=settings.Blobs(root=blobs_root, min_free_bytes=0), redis=settings.Redis(url="redis://127.0.0.1:1/0"))
    return JobPipeline(open_stores(configuration, app="test", db=db), owner)


def run(worker: JobPipeline) -> None:
    """Let a worker do jobs until none can be claimed."""
    while worker.run(lambda: None, 60):
        pass


def owner_in(stores: AllowedStores, actor: str = "open") -> JobOwner:
    """Return who requests a job that may change images of these stores."""
    return JobOwner(actor, actor, "anna", stores)


def read_job(db: Db, job_id: str) -> Document:
    """Return a job as stored."""
    return records.get(db, job_id, ALL_JOBS)


def read_tags(db: Db) -> dict[str, list[str]]:
    """Return the names of the tags of all images."""
    names = TagNames(db)
    return {row["_id"]: names.show(row["tags"]) for row in db.images.find({}, {"tags": 1})}


def each(ids: list[str], *names: str) -> dict[str, list[str]]:
    """Return what ``read_tags`` returns for images that all have the same tags."""
    return {name: list(names) for name in ids}


def check_counts(db: Db) -> None:
    """Check that the counts of tags are those of the images, by store, and that no image holds a tag twice."""
    held: Counter[tuple[str, str]] = Counter()
    for image in db.images.find({}, {"tags": 1, "store_name": 1}):
        ids = [entry["id"] for entry in image["tags"]]
        assert len(set(ids)) == len(ids), image
        held.update((tag_id, image["store_name"]) for tag_id in ids)
    counted = {(row["tag"], row["store"]): row["n"] for row in db.tag_counts.find() if row["n"]}
    assert counted == dict(held)
