"""The turns of the stores: none is lost, and no store has two."""

import threading
from datetime import timedelta

from shared.ledger import claims, store_rotation
from shared.storage.mongo import Db
from tests.integration.shared.ledger.claiming import set_not_before
from tests.support.ledger import claimed_fences, commit_new_batch, process_all, utc_now


def test_a_store_whose_images_wait_for_a_later_moment_keeps_its_turn_and_delays_no_other(db: Db) -> None:
    commit_new_batch(db, 2, "waiting")
    claims.release(db, "w", claimed_fences(claims.claim(db, "w", 8, 60)), "disk_full")
    set_not_before(db, utc_now() + timedelta(hours=1))
    commit_new_batch(db, 1, "ready")
    assert [image["store_name"] for image in claims.claim(db, "w", 8, 60).images] == ["ready"]
    assert db.turns.count_documents({"_id": "waiting", "pending": True}) == 1
    set_not_before(db, utc_now())
    assert len(claims.claim(db, "w", 8, 60).images) == 2


def test_a_turn_that_was_lost_in_a_crash_is_restored(db: Db) -> None:
    commit_new_batch(db, 1, "north")
    commit_new_batch(db, 1, "south")
    db.turns.delete_one({"_id": "north"})
    db.turns.update_one({"_id": "south"}, {"$set": {"pending": False}})
    assert store_rotation.repair(db) == (["north", "south"], "")
    assert len(claims.claim(db, "w", 8, 60).images) == 2


def test_work_that_arrives_while_a_store_is_found_empty_keeps_its_turn(db: Db) -> None:
    commit_new_batch(db, 1)
    process_all(db)
    (served,) = db.turns.find()
    db.turns.update_one({"_id": served["_id"]}, {"$set": {"pending": True}})
    (turn,) = store_rotation.list_waiting(db, 4)
    commit_new_batch(db, 1)  # between the read and the removal
    store_rotation.remove(db, turn)
    assert db.turns.count_documents({"pending": True}) == 1


def test_concurrent_first_batches_of_a_store_give_it_one_turn(db: Db) -> None:
    barrier = threading.Barrier(8)
    errors: list[Exception] = []

    def touch() -> None:
        barrier.wait()
        try:
            store_rotation.touch(db, ["new", "newer"])
        except Exception as error:  # noqa: BLE001 -- checked by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=touch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(turn["seq"] for turn in db.turns.find()) == [8, 8]
