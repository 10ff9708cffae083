"""Measure what changing a tag of many images costs: a rename, and tagging by a filter in a job, beside plain updates."""

import time
from collections import Counter
from datetime import datetime
from typing import Final

from scripts.bench import seed_image_fields, written_documents
from scripts.bench.extent import Extent
from scripts.bench.report import Row, Target, compare
from scripts.bench.search_lists import Lists
from scripts.bench.servers import Process, Servers, running
from scripts.bench.timing import median, seconds
from scripts.bench.waiting import wait_until
from shared.storage.mongo import Db, Document

_BULK_AT_MOST: Final = Target(at_most=30)
_BULK_TIMEOUT_S: Final = 600.0
_BULK_TAG: Final = "sorted"
_WITH_TAG: Final[tuple[Document, Document]] = (
    {"tag": seed_image_fields.LARGE_TAG},
    {"tags.id": seed_image_fields.TAG_IDS[seed_image_fields.LARGE_TAG]},
)
"""The filter of the job, and the same as a query of the database."""
_SMALL_JOB: Final = 1001
"""A request tags up to 1,000 images itself."""
_POLL_S: Final = 0.02
_ENDED: Final = frozenset({"done", "failed", "cancelled"})


def measure_rename(lists: Lists, *, rounds: int) -> list[Row]:
    """Rename a tag of a tenth of the images, and compare this with an update of all documents that hold a name.

    Each rename must show in the next list. The writes of a rename are those in MongoDB's log of operations (``local.oplog.rs``).
    """
    tag_id = seed_image_fields.TAG_IDS[seed_image_fields.LARGE_TAG]
    tagged = lists.db.images.count_documents({"tags.id": tag_id})
    name = seed_image_fields.LARGE_TAG
    times = []
    writes: Counter[str] = Counter()
    for number in range(rounds):
        new_name = f"{seed_image_fields.LARGE_TAG} {number}"
        with written_documents.count_written(lists.db) as written:
            times.append(1000 * lists.request("PATCH", f"/tags/{name}", json={"name": new_name})[0])
        writes |= written
        name = new_name
        _check_shown(lists, name)
    lists.request("PATCH", f"/tags/{name}", json={"name": seed_image_fields.LARGE_TAG})
    plain_ms = 1000 * seconds(lambda: _write_names(lists.db, tag_id, name))
    what = f"rename of a tag on {tagged:,} images"
    return [
        compare(f"{what}: median, beside an update of all these images", median(times), "ms", plain_ms),
        Row(f"{what}: writes to tags", writes["tags"], "documents", target=Target(at_most=1)),
        Row(f"{what}: writes to images", writes["images"], "documents", target=Target(at_most=0)),
        Row(f"{what}: other writes (the security log)", _others(writes), "documents"),
    ]


def measure_bulk(lists: Lists, servers: Servers, extent: Extent) -> list[Row]:
    """Tag many images by a filter, in a job of a real worker, and undo it; compare both with one plain update of the same images.

    The filter chooses 100,000 images: those with a tag, or all if there are as many. In a smoke run, these are fewer. The
    worker has done a small job before.
    """
    everything: tuple[Document, Document] = {"since": "1970-01-02T00:00:00Z"}, {}
    filters, query = extent.choose(full=_WITH_TAG, quick=everything, smoke=everything)
    worker = Process("search-jobs", ["worker.entrypoints.jobs"], servers.environment, servers.folder)
    with running(worker):
        few = [row["_id"] for row in lists.db.images.find({}, {"_id": 1}).limit(_SMALL_JOB)]
        _run_job(lists, worker, "/images/tags", {"ids": few, "add": ["first"]})
        tagging_s, job = _run_job(lists, worker, "/images/tags", {"filters": filters, "add": [_BULK_TAG]})
        tagged = _count_tagged(lists.db)
        if job["status"] != "done" or job["changed"] != tagged or tagged < job["total"]:
            raise RuntimeError(f"The job has not tagged all images: {job}, and {tagged} images have the tag.")
        undo_s, undone = _run_job(lists, worker, f"/jobs/{job['id']}/undo", {})
        left = _count_tagged(lists.db)
        if undone["status"] != "done" or left:
            raise RuntimeError(f"The job was not undone: {undone}, and {left} images still have the tag.")
    plain_s = seconds(lambda: _tag_plainly(lists.db, query))
    what = f"tagging of {tagged:,} images by a filter"
    return [
        Row(f"{what}: from the request to the end of the job", tagging_s, "s", target=_BULK_AT_MOST),
        compare(f"{what}: beside one plain update of these images", tagging_s, "s", plain_s),
        compare(f"{what}, undone: beside one plain update of these images", undo_s, "s", plain_s),
    ]


def _check_shown(lists: Lists, name: str) -> None:
    """Check that the next list shows the new name of the tag."""
    images = lists.get_images({"tag": name, "cursor": "newest"})[1]["images"]
    if not images or any(name not in image["tags"] for image in images):
        raise RuntimeError(f"The list does not show the new name of the tag, {name!r}.")


def _write_names(db: Db, tag_id: str, name: str) -> None:
    """Write a name into all images with a tag, as if images held the names of their tags."""
    db.images.update_many(
        {"tags.id": tag_id}, {"$set": {"tags.$[applied].name": name}}, array_filters=[{"applied.id": tag_id}]
    )


def _tag_plainly(db: Db, query: Document) -> None:
    """Tag images with one command."""
    db.images.update_many(query, {"$push": {"tags": {"id": "0" * 32, "by": None, "at": datetime(2026, 1, 1)}}})


def _run_job(lists: Lists, worker: Process, path: str, body: Document) -> tuple[float, Document]:
    """Make a request that creates a job; return the seconds until the job has ended, and the job."""
    started = time.perf_counter()
    job_id = lists.request("POST", path, json=body)[1]["job_id"]
    job: Document = {}

    def has_ended() -> bool:
        worker.raise_if_ended()
        job.update(lists.request("GET", f"/jobs/{job_id}")[1])
        return job["status"] in _ENDED

    wait_until(has_ended, _BULK_TIMEOUT_S, "The job did not end", interval_s=_POLL_S)
    return time.perf_counter() - started, job


def _count_tagged(db: Db) -> int:
    tag = db.tags.find_one({"key": _BULK_TAG})
    return 0 if tag is None else db.images.count_documents({"tags.id": tag["_id"]})


def _others(writes: Counter[str]) -> int:
    return sum(count for name, count in writes.items() if name not in ("tags", "images"))
