"""Repairs of images stop at their time limits and continue at the next tick, however much there is to repair."""

import pytest

from shared.bootstrap import open_stores
from shared.ledger import claims, results
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, expire_leases, successful_results
from worker.sweep import images
from worker.sweep.images import ImageSweep

NO_TIME = 0.0
NO_LIMIT = float("inf")


@pytest.fixture
def sweep(db: Db, blobs: LocalBlobs, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> ImageSweep:
    """Return a sweep that repairs two leases, batches or stores at once."""
    for name in ("_LEASES_AT_ONCE", "_BATCHES_AT_ONCE", "_TURNS_AT_ONCE"):
        monkeypatch.setattr(images, name, 2)
    return ImageSweep(open_stores(worker_settings, app="test", db=db, blobs=blobs))


def lose_leases(db: Db) -> None:
    """Claim all images, and let the leases expire."""
    claim = claims.claim(db, "w", 32, 60)
    expire_leases(db, [image["_id"] for image in claim.images])


@pytest.mark.parametrize(("until", "queued"), [(NO_TIME, [2, 4, 5, 5]), (NO_LIMIT, [5, 5])])
def test_expired_leases(db: Db, sweep: ImageSweep, until: float, queued: list[int]) -> None:
    commit_new_batch(db, 5)
    lose_leases(db)
    before = 0
    for expected in queued:
        assert sweep.expire_leases(until) is (expected > before)
        before = db.images.count_documents({"status": "queued"})
        assert before == expected


@pytest.mark.parametrize(("until", "closed"), [(NO_TIME, [2, 4, 5, 5]), (NO_LIMIT, [5, 5])])
def test_closable_batches(db: Db, sweep: ImageSweep, until: float, closed: list[int]) -> None:
    for _ in range(5):
        commit_new_batch(db, 1)
    claim = claims.claim(db, "w", 32, 60)
    results.finish(db, "w", successful_results(claim))  # and the worker dies here
    before = 0
    for expected in closed:
        assert sweep.close_batches(until) is (expected > before)
        before = db.batches.count_documents({"status": "done"})
        assert before == expected


@pytest.mark.parametrize(("until", "restored"), [(NO_TIME, [2, 4, 5, 5]), (NO_LIMIT, [5, 5])])
def test_lost_turns(db: Db, sweep: ImageSweep, until: float, restored: list[int]) -> None:
    for number in range(5):
        commit_new_batch(db, 1, f"store {number}")
    db.store_turns.delete_many({})
    for expected in restored:
        assert not sweep.publish_wakeup(until)  # Redis is away
        assert db.store_turns.count_documents({"pending": True}) == expected
