"""What waits is counted exactly; stores and ages are those of the images that were accepted first."""

from datetime import timedelta

import pytest

from shared.ledger import claims, waiting_images
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, process_all, utc_now


def set_age(db: Db, store: str, seconds: float, field: str = "created_at") -> None:
    db.images.update_many({"store_name": store}, {"$set": {field: utc_now() - timedelta(seconds=seconds)}})


def test_without_images_nothing_waits(db: Db) -> None:
    expected = waiting_images.WaitingImages(0, 0, 0.0, (), stores_more=False)
    assert waiting_images.measure(db) == expected
    commit_new_batch(db, 3)
    process_all(db)
    assert waiting_images.measure(db) == expected


def test_the_waiting_images_of_each_store_are_counted_those_with_most_first(db: Db) -> None:
    commit_new_batch(db, 2, "south")
    claims.claim(db, "w", 2, 60)
    commit_new_batch(db, 3, ["north", "$west", "north"])
    commit_new_batch(db, 4, "east")
    found = waiting_images.measure(db)
    assert (found.waiting, found.running, found.stores_more) == (7, 2, False)
    assert [(store.store_name, store.waiting) for store in found.by_store] == [("east", 4), ("north", 2), ("$west", 1)]


def test_an_image_waits_since_it_was_queued_again_or_else_since_it_was_accepted(db: Db) -> None:
    for store, age_s in (("north", 5000), ("south", 300)):
        commit_new_batch(db, 2, store)
        set_age(db, store, age_s)
    set_age(db, "north", 100, "work.queued_at")
    found = waiting_images.measure(db)
    ages = {store.store_name: store.oldest_age_s for store in found.by_store}
    assert 100 <= ages["north"] < 200
    assert 300 <= ages["south"] == found.oldest_age_s < 400


def test_more_images_or_stores_than_are_read_are_said_to_exist(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    for store in ("north", "south", "west"):
        commit_new_batch(db, 2, store)
    monkeypatch.setattr(waiting_images, "MAX_READ", 5)
    found = waiting_images.measure(db)
    assert (found.waiting, found.stores_more) == (6, True)
    assert [(store.store_name, store.waiting) for store in found.by_store] == [("north", 2), ("south", 2), ("west", 1)]
    monkeypatch.setattr(waiting_images, "MAX_READ", 6)
    assert not waiting_images.measure(db).stores_more
    monkeypatch.setattr(waiting_images, "MAX_STORES", 2)
    found = waiting_images.measure(db)
    assert ([store.store_name for store in found.by_store], found.stores_more) == (["north", "south"], True)
