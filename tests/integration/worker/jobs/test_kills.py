"""Real workers are killed at random moments. Each part of a job happens once, and its undo restores what was before."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scripts.local.installation import ROOT
from shared import settings
from shared.bootstrap import open_stores
from shared.jobs import claims
from shared.queue import heartbeats
from shared.queues import JOBS
from shared.storage.identity import StoreIdentity
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
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
from tests.support.ledger import validate_documents
from tests.support.service_stack import wait_until
from worker.sweep import jobs as job_sweep
from worker.sweep.failures import succeeds

pytestmark = pytest.mark.slow
_IMAGES = 6_000
_ENDED = {"done", "failed", "cancelled"}


class Worker:
    """``python -m worker.entrypoints.jobs``, which is started again whenever it was killed."""

    def __init__(self, mongo: settings.Mongo, redis_url: str, folder: Path) -> None:
        self._folder = folder
        self._variables = {
            "MONGODB_URL": mongo.url,
            "MONGODB_DATABASE": mongo.database,
            "REDIS_URL": redis_url,
            "BLOBS_ROOT": str(folder / "blobs"),
            "WORKER_LEASE_S": "2",
            "LOG_LEVEL": "WARNING",
        }
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with (self._folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "worker.entrypoints.jobs"], cwd=ROOT, env=os.environ | self._variables, stdout=log, stderr=log, start_new_session=True
            )

    def children(self) -> list[psutil.Process]:
        """Return the pool child, in which jobs are done."""
        try:
            return [child for child in psutil.Process(self.process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def kill(self, *, with_main: bool) -> None:
        """Kill the pool child, and the main process, too, if wanted. The main process replaces its child by itself."""
        victims = self.children()
        if with_main:
            self.process.kill()
            self.process.wait(60)
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        if with_main:
            self.process = self._start()

    def stop(self) -> None:
        """End all processes."""
        victims = self.children()
        self.process.kill()
        self.process.wait(60)
        psutil.wait_procs([victim for victim in victims if victim.is_running() and not victim.kill()], 60)


@contextmanager
def running(mongo: settings.Mongo, redis_url: str, folder: Path) -> Iterator[Worker]:
    worker = Worker(mongo, redis_url, folder)
    try:
        yield worker
    finally:
        worker.stop()


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
        kills = _kill_until_it_ends(db, worker, stores, job_id, chance)
        job = read_job(db, job_id)
        assert (job["status"], job["done"], job["changed"], job["total"]) == ("done", _IMAGES, _IMAGES, _IMAGES), kills
        assert read_tags(db) == each(ids, "new")
        found = {row["_id"]: row["revision"] for row in db.images.find({}, {"revision": 1})}
        assert found == {name: revision + 1 for name, revision in revisions.items()}
        assert sum(len(change["images"]) for change in db.job_changes.find()) == _IMAGES
        undo_id = start_undo(db, job_id)
        kills += _kill_until_it_ends(db, worker, stores, undo_id, chance)
    assert kills >= 2
    assert (read_job(db, undo_id)["status"], read_job(db, undo_id)["done"]) == ("done", _IMAGES)
    assert read_tags(db) == before
    check_counts(db)
    validate_documents(db)
    for publisher in stores.wakeups.values():
        publisher.close()


def _kill_until_it_ends(db: Db, worker: Worker, stores: object, job_id: str, chance: random.Random) -> int:
    """Kill the worker again and again while it does a job, and return how often. Between kills, it gets on with its work."""
    kills, until = 0, time.monotonic() + 240
    while (job := read_job(db, job_id))["status"] not in _ENDED:
        assert time.monotonic() < until, job
        succeeds(job_sweep.repair, stores)
        if job["status"] == "processing" and kills < 2:
            time.sleep(chance.uniform(0.0, 0.4))  # the moment of the kill is random
            worker.kill(with_main=chance.random() < 0.3)
            kills += 1
            done = job["done"]
            wait_until(lambda done=done: _is_further(db, stores, job_id, done), 120, "further progress")  # type: ignore[misc]
        time.sleep(0.05)
    return kills


def _is_further(db: Db, stores: object, job_id: str, done: int) -> bool:
    succeeds(job_sweep.repair, stores)
    job = read_job(db, job_id)
    return job["done"] > done or job["status"] in _ENDED


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
