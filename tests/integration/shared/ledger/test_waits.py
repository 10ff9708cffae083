"""How long the oldest queued image has waited for a worker that serves its account."""

from datetime import timedelta

import pytest

from shared.ledger import cancellation, claims, reprocessing, turns, waits
from shared.ledger.reprocessing import Options
from shared.ledger.turns import Turn
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, process_all, utc_now

HOUR_S = 3600.0


def set_age(db: Db, batch_id: str, hours: float) -> None:
    db.images.update_many({"batch_id": batch_id}, {"$set": {"created_at": utc_now() - timedelta(hours=hours)}})


def set_served(db: Db, account: str | None, hours: float) -> None:
    turn = Turn(account, "normal", "north")
    turns.touch(db, [turn])
    db.account_turns.update_one({"_id": turn.account_id}, {"$set": {"served_at": utc_now() - timedelta(hours=hours)}})


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


@pytest.mark.parametrize("account", [None, "user:a"])
@pytest.mark.parametrize(("age", "served", "expected"), [(30, 30, 30), (30, 40, 30), (30, 2, 2), (30, None, 30), (1, 50, 1)])
def test_the_wait_lasts_since_the_image_was_accepted_or_the_account_was_served(db: Db, account: str | None, age: int, served: int | None, expected: int) -> None:
    batch_id = commit_new_batch(db, 1, account=account)
    set_age(db, batch_id, age)
    db.account_turns.delete_many({})
    if served is not None:
        set_served(db, account, served)
    assert waited(db) == (batch_id, expected)


def test_the_oldest_image_counts(db: Db) -> None:
    old, new = commit_new_batch(db, 1, store="north"), commit_new_batch(db, 1, store="south")
    db.account_turns.delete_many({})
    set_age(db, old, 5)
    set_age(db, new, 3)
    assert waited(db) == (old, 5)


def test_a_worker_that_takes_up_a_part_of_the_backlog_ends_the_wait(db: Db) -> None:
    batch_id = commit_new_batch(db, 5, store="north")
    set_age(db, batch_id, 48)
    set_served(db, None, 48)
    assert waited(db) == (batch_id, 48)
    claims.claim(db, "w", 1, 60)
    assert waited(db) == (batch_id, 0)


def test_an_image_that_is_taken_up_and_released_again_and_again_does_not_prolong_the_wait(db: Db) -> None:
    batch_id = commit_new_batch(db, 1, store="north")
    set_age(db, batch_id, 48)
    set_served(db, None, 48)
    claim = claims.claim(db, "w", 1, 60)
    claims.release(db, "w", claim.leases, "environment")
    assert waited(db) == (batch_id, 0)


@pytest.mark.parametrize(("queued", "expected"), [(3, 3), (60, 30)])
def test_the_wait_of_an_image_that_was_queued_again_lasts_since_then(db: Db, queued: int, expected: int) -> None:
    batch_id = commit_new_batch(db, 1)
    set_age(db, batch_id, 30)
    db.account_turns.delete_many({})
    db.images.update_many({}, {"$set": {"work.queued_at": utc_now() - timedelta(hours=queued)}})
    assert waited(db) == (batch_id, expected)


def test_images_behind_those_of_a_higher_priority_wait_no_longer_than_their_account(db: Db) -> None:
    low = commit_new_batch(db, 1, priority="low", store="south")
    commit_new_batch(db, 10, priority="high")
    set_age(db, low, 48)
    set_served(db, None, 48)
    claims.claim(db, "w", 1, 60)
    assert waited(db) == (low, 0)


def test_another_account_that_is_served_does_not_end_the_wait(db: Db) -> None:
    old = commit_new_batch(db, 1, account="user:a")
    commit_new_batch(db, 1, account="user:b")
    set_age(db, old, 48)
    set_served(db, "user:a", 48)
    set_served(db, "user:b", 49)
    claims.claim(db, "w", 1, 60)
    assert waited(db) == (old, 48)


def _queue_again(db: Db, batch_id: str) -> None:
    """Queue the images of a finished batch again, at this moment."""
    assert reprocessing.reprocess(db, batch_id, {}, Options(), None).queued


@pytest.mark.parametrize("account", [None, "user:a"])
def test_an_old_batch_that_is_processed_again_does_not_hide_images_that_wait(db: Db, account: str | None) -> None:
    old = commit_new_batch(db, 3, account="user:old")
    process_all(db)
    waiting = commit_new_batch(db, 2, account=account)
    set_age(db, waiting, 48)
    set_served(db, account, 40)
    _queue_again(db, old)
    assert waited(db) == (waiting, 40)
    process_all(db, size=1)
    assert waits.find_wait(db) is None


@pytest.mark.parametrize("store", ["north", "south"])
def test_an_old_batch_of_the_same_account_does_not_hide_images_that_wait(db: Db, store: str) -> None:
    old = commit_new_batch(db, 3, store, priority="high")
    process_all(db)
    waiting = commit_new_batch(db, 2)
    set_age(db, waiting, 48)
    for collection in (db.account_turns, db.store_turns):
        collection.update_many({"pending": True}, {"$set": {"served_at": utc_now() - timedelta(hours=40)}})
    _queue_again(db, old)
    assert waited(db) == (waiting, 40)


def test_an_image_of_low_priority_waits_no_longer_than_its_account(db: Db) -> None:
    low = commit_new_batch(db, 1, priority="low")
    set_age(db, low, 48)
    commit_new_batch(db, 5)
    for collection in (db.account_turns, db.store_turns):
        collection.update_many({}, {"$set": {"served_at": utc_now() - timedelta(hours=40)}})
    claims.claim(db, "w", 1, 60)
    assert waited(db) == (low, 0)


def test_a_turn_that_has_no_images_any_more_does_not_count(db: Db) -> None:
    cancelled = commit_new_batch(db, 1, account="user:a")
    old = commit_new_batch(db, 1, account="user:b")
    set_served(db, "user:a", 48)
    set_served(db, "user:b", 30)
    cancellation.cancel(db, cancelled, None)
    set_age(db, old, 20)
    assert waited(db) == (old, 20)
    new = commit_new_batch(db, 1, account="user:a")
    assert waited(db) == (old, 20)
    set_age(db, new, 25)
    assert waited(db) == (new, 25)
