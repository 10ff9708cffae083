"""Runs a worker that does jobs, and kills it again and again until a job has ended."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from scripts.local.installation import ROOT
from shared import settings
from shared.storage.mongo import Db
from tests.integration.worker.jobs.tagging import read_job
from tests.support.service_stack import wait_until
from worker.sweep import jobs as job_sweep
from worker.sweep.failures import succeeds

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
    """Run a worker until the context ends."""
    worker = Worker(mongo, redis_url, folder)
    try:
        yield worker
    finally:
        worker.stop()


def kill_until_it_ends(db: Db, worker: Worker, stores: object, job_id: str, chance: random.Random) -> int:
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
