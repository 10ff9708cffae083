"""How long the oldest queued image has waited for a worker that serves its store."""

from datetime import timedelta

import pytest

from shared.ledger import claims, store_rotation, waits
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, utc_now

HOUR_S = 3600.0


def set_age(db: Db, batch_id: str, hours: float) -> None:
    db.images.update_many({"batch_id": batch_id}, {"$set": {"created_at": utc_now() - timedelta(hours=hours)}})


def set_served(db: Db, store: str, hours: float) -> None:
    store_rotation.touch(db, [store])
    db.turns.update_one({"_id": store}, {"$set": {"served_at": utc_now() - timedelta(hours=hours)}})


def waited(db: Db) -> tuple[str, int]:
    """Return the batch that waits, and for how many hours."""
    wait = waits.find_wait(db)
    assert wait is not None
    return wait.batch_id, round(wait.seconds / HOUR_S)


def test_nothing_waits_without_queued_images(db: Db) -> None:
    assert waits.find_wait(db) is None
    commit_new_batch(db, 2)
    claims.claim(db, "w", 10, 60)
    assert waits.find_wait(db) is None


@pytest.mark.parametrize(("age", "served", "expected"), [(30, 30, 30), (30, 40, 30), (30, 2, 2), (30, None, 30), (1, 50, 1)])
def test_the_wait_lasts_since_the_image_was_accepted_or_the_store_was_served(db: Db, age: int, served: int | None, expected: int) -> None:
    batch_id = commit_new_batch(db, 1, store="north")
    set_age(db, batch_id, age)
    db.turns.delete_many({})
    if served is not None:
        set_served(db, "north", served)
    assert waited(db) == (batch_id, expected)


def test_the_oldest_image_counts(db: Db) -> None:
    old, new = commit_new_batch(db, 1, store="north"), commit_new_batch(db, 1, store="south")
    db.turns.delete_many({})
    set_age(db, old, 5)
    set_age(db, new, 3)
    assert waited(db) == (old, 5)


def test_a_worker_that_takes_up_a_part_of_the_backlog_ends_the_wait(db: Db) -> None:
    batch_id = commit_new_batch(db, 5, store="north")
    set_age(db, batch_id, 48)
    set_served(db, "north", 48)
    assert waited(db) == (batch_id, 48)
    claims.claim(db, "w", 1, 60)
    assert waited(db) == (batch_id, 0)


def test_an_image_that_is_taken_up_and_released_again_and_again_does_not_prolong_the_wait(db: Db) -> None:
    batch_id = commit_new_batch(db, 1, store="north")
    set_age(db, batch_id, 48)
    set_served(db, "north", 48)
    claim = claims.claim(db, "w", 1, 60)
    claims.release(db, "w", claim.leases, "environment")
    assert waited(db) == (batch_id, 0)
