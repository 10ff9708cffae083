"""The part of the sweep that is about inspections: old results, stray files, and vanished workers."""

import os
import time
from pathlib import Path

import pytest

from shared import settings
from shared.bootstrap import open_stores
from shared.inspections import jobs, results
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import incoming_key, inspection_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.integration.shared.inspections.requesting import claim, end_leases, request, set_last_use
from worker.sweep.inspections import InspectionSweep

pytestmark = pytest.mark.slow


class SweepSetup:
    """A sweep over a blob store of its own; Redis is unreachable by default."""

    def __init__(self, db: Db, mongo: settings.Mongo, root: Path, redis_url: str = "redis://127.0.0.1:1/0") -> None:
        self.blobs = LocalBlobs(root)
        self.root = root
        configuration = settings.Settings(
            mongo=mongo,
            blobs=settings.Blobs(root=root, min_free_bytes=0),
            redis=settings.Redis(url=redis_url),
            inspect=settings.Inspect(fresh_s=50, keep_s=50, max_store_bytes=1000),
        )
        self.stores = open_stores(configuration, app="test", db=db, blobs=self.blobs)
        self.wakeups = self.stores.wakeups[INSPECTIONS]
        self.sweep = InspectionSweep(self.stores)

    def clean(self) -> None:
        for _ in range(256):  # one shard each
            self.sweep.clean(time.monotonic() + 60)


@pytest.fixture
def sweep_setup(db: Db, mongo: settings.Mongo, blobs_root: Path) -> SweepSetup:
    return SweepSetup(db, mongo, blobs_root)


def test_the_sweep_removes_old_results_with_their_files_and_keeps_the_others(db: Db, sweep_setup: SweepSetup) -> None:
    old, young = "1" * 32, "2" * 32
    for result, age_s in ((old, 60), (young, 40)):
        sweep_setup.blobs.write(inspection_key(result[::-1], "original"), [b"jpeg"])
        results.store(db, result, {}, result[::-1], 4)
        set_last_use(db, result, age_s)
    sweep_setup.clean()
    assert [sweep_setup.blobs.stat(inspection_key(result[::-1], "original")) is None for result in (old, young)] == [
        True,
        False,
    ]
    assert [row["_id"] for row in db.inspection_results.find()] == [young]


def test_the_sweep_removes_old_files_that_belong_to_no_result(sweep_setup: SweepSetup) -> None:
    keys = [
        inspection_key("3" * 32, "original"),
        incoming_key("4" * 32),
        inspection_key("5" * 32, "original"),
        incoming_key("6" * 32),
    ]
    for key in keys:
        sweep_setup.blobs.write(key, [b"jpeg"])
    for key in keys[:2]:
        os.utime(sweep_setup.root / key, (1, 1))
    sweep_setup.clean()
    assert [sweep_setup.blobs.stat(key) is None for key in keys] == [True, True, False, False]


def test_the_sweep_queues_the_inspections_of_vanished_workers_and_publishes_a_wakeup(
    db: Db, mongo: settings.Mongo, blobs_root: Path, redis_url: str
) -> None:
    sweep_setup = SweepSetup(db, mongo, blobs_root, redis_url)
    request(db)
    claim(db)
    end_leases(db)
    before = sweep_setup.wakeups.count_waiting()
    assert before is not None
    sweep_setup.sweep.repair()
    assert jobs.has_claimable(db)
    assert sweep_setup.wakeups.count_waiting() == max(1, before)
    sweep_setup.wakeups.close()
