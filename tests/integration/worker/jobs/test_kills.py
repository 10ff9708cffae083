"""Real workers are killed at random moments. Each part of a job happens once, and its undo restores what was before."""

import random
import threading
from pathlib import Path

import pytest

from shared import settings
from shared.bootstrap import open_stores
from shared.jobs import claims
from shared.ledger import audit
from shared.queue import heartbeats
from shared.queues import JOBS
from shared.storage.identity import StoreIdentity
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.worker.jobs.killing import kill_until_it_ends, running
from tests.integration.worker.jobs.reprocessing import (
    complete_marks,
    make_done,
    start_reprocessing,
    times_queued,
)
from tests.integration.worker.jobs.tagging import (
    check_counts,
    each,
    make_images,
    read_job,
    read_tags,
    start_job,
    start_undo,
    tag_now,
)
from tests.support.ledger import process_all, validate_documents
from tests.support.service_stack import wait_until
from worker.sweep import jobs as job_sweep

pytestmark = pytest.mark.slow
_IMAGES = 6_000


def test_parts_happen_once_although_workers_are_killed(db: Db, mongo: settings.Mongo, redis_url: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    StoreIdentity(db, LocalBlobs(tmp_path / "blobs")).check()  # a database with images must not get its marker later
    ids = make_images(db, _IMAGES)
    tag_now(db, ids[:500], "old")
    before = read_tags(db)
    revisions = {row["_id"]: row.get("revision") or 0 for row in db.images.find({}, {"revision": 1})}
    configuration = settings.Settings(mongo=mongo, blobs=settings.Blobs(root=tmp_path / "blobs"), redis=settings.Redis(url=redis_url))
    stores = open_stores(configuration, app="test", db=db)
    with running(mongo, redis_url, tmp_path) as worker:
        wait_until(lambda: heartbeats.is_worker_alive(db, JOBS), 120, "the worker")
        assert not [child for child in worker.children() if any("torch" in Path(file.path).parts for file in child.memory_maps())]
        job_id = start_job(db, "new", remove=("old",))
        kills = kill_until_it_ends(db, worker, stores, job_id, chance)
        job = read_job(db, job_id)
        assert (job["status"], job["done"], job["changed"], job["total"]) == ("done", _IMAGES, _IMAGES, _IMAGES), kills
        assert read_tags(db) == each(ids, "new")
        found = {row["_id"]: row["revision"] for row in db.images.find({}, {"revision": 1})}
        assert found == {name: revision + 1 for name, revision in revisions.items()}
        assert sum(len(change["images"]) for change in db.job_changes.find()) == _IMAGES
        undo_id = start_undo(db, job_id)
        kills += kill_until_it_ends(db, worker, stores, undo_id, chance)
    assert kills >= 2
    assert (read_job(db, undo_id)["status"], read_job(db, undo_id)["done"]) == ("done", _IMAGES)
    assert read_tags(db) == before
    check_counts(db)
    validate_documents(db)
    for publisher in stores.wakeups.values():
        publisher.close()


def test_each_image_is_queued_again_once_although_workers_are_killed_and_images_are_processed(
    db: Db, mongo: settings.Mongo, redis_url: str, tmp_path: Path
) -> None:
    chance = random.Random(2)
    StoreIdentity(db, LocalBlobs(tmp_path / "blobs")).check()
    ids = make_done(db, _IMAGES)
    configuration = settings.Settings(mongo=mongo, blobs=settings.Blobs(root=tmp_path / "blobs"), redis=settings.Redis(url=redis_url))
    stores = open_stores(configuration, app="test", db=db)
    ended = threading.Event()

    def process_until_the_end() -> None:
        while not ended.wait(0.2):
            complete_marks(db)
            process_all(db, size=250)

    processing = threading.Thread(target=process_until_the_end)
    with running(mongo, redis_url, tmp_path) as worker:
        wait_until(lambda: heartbeats.is_worker_alive(db, JOBS), 120, "the worker")
        processing.start()
        try:
            job_id = start_reprocessing(db)
            kills = kill_until_it_ends(db, worker, stores, job_id, chance)
        finally:
            ended.set()
            processing.join()
    assert kills >= 1
    job = read_job(db, job_id)
    assert (job["status"], job["total"], job["done"], job["changed"]) == ("done", _IMAGES, _IMAGES, _IMAGES), kills
    assert times_queued(db, job_id) == dict.fromkeys(ids, 1)
    process_all(db, size=250)
    assert audit.balance(db)["done"] == _IMAGES
    validate_documents(db)
    for publisher in stores.wakeups.values():
        publisher.close()


def test_the_sweep_wakes_a_worker_and_continues_the_jobs_of_dead_ones(db: Db, mongo: settings.Mongo, redis_url: str) -> None:
    configuration = settings.Settings(mongo=mongo, redis=settings.Redis(url=redis_url))
    stores = open_stores(configuration, app="test", db=db)
    wakeups = stores.wakeups[JOBS]
    while wakeups.count_waiting():
        stores.wakeups[JOBS]._redis.delete(JOBS.name)
    assert not job_sweep.repair(stores)
    assert wakeups.count_waiting() == 0
    make_images(db, 1001)
    job_id = start_job(db, "sale")
    assert not job_sweep.repair(stores)
    assert not job_sweep.repair(stores)
    assert wakeups.count_waiting() == 1
    assert claims.claim(db, "dead", 60) is not None
    db.jobs.update_one({"_id": job_id}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    assert job_sweep.repair(stores)
    assert not job_sweep.repair(stores)
    assert read_job(db, job_id)["status"] == "queued"
    stores.wakeups[JOBS]._redis.delete(JOBS.name)
    for publisher in stores.wakeups.values():
        publisher.close()
