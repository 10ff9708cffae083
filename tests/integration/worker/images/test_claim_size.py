"""The queued images are divided among the workers that are alive."""

import pytest

from shared.ledger import claims
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch
from worker.images.claim_size import ClaimSize


def start_workers(db: Db, count: int) -> None:
    for number in range(count):
        heartbeats.send_heartbeat(db, f"worker-{number}", IMAGES)


@pytest.mark.parametrize(
    ("workers", "queued", "size"),
    [
        (0, 10, 32),
        (1, 10, 32),
        (2, 0, 8),
        (2, 10, 8),
        (2, 32, 16),
        (2, 33, 17),
        (2, 64, 32),
        (2, 100, 32),
        (4, 32, 8),
        (4, 100, 25),
    ],
)
def test_a_claim_is_the_share_of_one_worker_between_the_two_limits(
    db: Db, workers: int, queued: int, size: int
) -> None:
    start_workers(db, workers)
    if queued:
        commit_new_batch(db, queued)
    assert ClaimSize(db, least=8, most=32).choose() == size


def test_workers_that_cannot_process_images_get_no_share(db: Db) -> None:
    start_workers(db, 1)
    heartbeats.send_heartbeat(db, "no-model", IMAGES, "model_unusable")
    heartbeats.send_heartbeat(db, "inspector", INSPECTIONS)
    heartbeats.send_heartbeat(db, "dead", IMAGES)
    db.workers.update_one({"_id": "dead"}, [{"$set": {"seen": {"$subtract": ["$$NOW", 60_000]}}}])
    commit_new_batch(db, 10)
    assert ClaimSize(db, least=1, most=32).choose() == 32


def test_the_smaller_limit_wins_if_the_model_takes_more_images_than_a_claim_may_have(db: Db) -> None:
    start_workers(db, 2)
    commit_new_batch(db, 4)
    assert ClaimSize(db, least=64, most=32).choose() == 32


def test_two_workers_share_a_small_batch(db: Db) -> None:
    start_workers(db, 2)
    commit_new_batch(db, 32)
    sizes = ClaimSize(db, least=8, most=32)
    first = claims.claim(db, "worker-0", sizes.choose(), 30)
    assert (len(first.images), first.full) == (16, True)  # so the first worker wakes the second one
    rest = [len(claims.claim(db, owner, sizes.choose(), 30).images) for owner in ("worker-1", "worker-0", "worker-1")]
    assert rest == [8, 8, 0]
