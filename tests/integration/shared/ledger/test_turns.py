"""The turns of accounts and stores: none is lost, and nothing has two."""

import threading
from datetime import timedelta

import pytest

from shared.ledger import claims, turns
from shared.ledger.turns import AccountTurn, StoreTurn, Turn
from shared.priorities import PRIORITIES, Priority
from shared.storage.mongo import Db
from tests.integration.shared.ledger.claiming import set_not_before
from tests.support.ledger import claimed_fences, commit_new_batch, process_all, utc_now, validate_documents


def listed(db: Db) -> list[tuple[str, list[str]]]:
    """Return the waiting accounts with their stores, as the next claim finds them."""
    return [(account.id, [store.turn.store for store in account.stores]) for account in turns.list_waiting(db, 16)]


def test_a_store_whose_images_wait_for_a_later_moment_keeps_its_turn_and_delays_no_other(db: Db) -> None:
    commit_new_batch(db, 2, "waiting")
    claims.release(db, "w", claimed_fences(claims.claim(db, "w", 8, 60)), "disk_full")
    set_not_before(db, utc_now() + timedelta(hours=1))
    commit_new_batch(db, 1, "ready")
    assert [image["store_name"] for image in claims.claim(db, "w", 8, 60).images] == ["ready"]
    assert not claims.claim(db, "w", 8, 60).images
    assert listed(db) == [("open", ["waiting"])]
    set_not_before(db, utc_now())
    assert len(claims.claim(db, "w", 8, 60).images) == 2


def test_an_account_whose_images_wait_for_a_later_moment_delays_no_other(db: Db) -> None:
    for number in range(20):
        commit_new_batch(db, 1, account=f"user:{number}")
    set_not_before(db, utc_now() + timedelta(hours=1))
    commit_new_batch(db, 1, account="user:ready")
    assert [image["account"] for image in claims.claim(db, "w", 8, 60).images] == ["user:ready"]
    set_not_before(db, utc_now())
    process_all(db)
    assert db.images.count_documents({"status": "done"}) == 20


def _commit_for_later(db: Db, stores: int, **fields: object) -> None:
    """Commit an image for each of some stores that can be claimed in an hour, as after a retry."""
    for number in range(stores):
        commit_new_batch(db, 1, f"waiting {number:02}", **fields)
    set_not_before(db, utc_now() + timedelta(hours=1))


@pytest.mark.parametrize("size", [1, 4, 32])
@pytest.mark.parametrize("stores", [1, 16, 40])
def test_images_of_a_higher_priority_that_wait_for_a_retry_do_not_delay_those_of_lower_priorities(db: Db, stores: int, size: int) -> None:
    _commit_for_later(db, stores, priority="high")
    commit_new_batch(db, 4, "ready")
    commit_new_batch(db, 4, "ready", priority="low")
    claimed = [turns.turn_of(image) for _ in range(8 // min(size, 8)) for image in claims.claim(db, "w", size, 60).images]
    assert claimed == [Turn(None, "normal", "ready")] * 4 + [Turn(None, "low", "ready")] * 4
    assert not claims.claim(db, "w", size, 60).images
    set_not_before(db, utc_now())
    process_all(db)
    assert db.images.count_documents({"status": "done"}) == stores


@pytest.mark.parametrize("size", [1, 4, 32])
def test_an_account_with_many_images_that_wait_for_a_retry_keeps_its_share_while_others_have_enough(db: Db, size: int) -> None:
    _commit_for_later(db, 20, priority="high", account="user:a")
    commit_new_batch(db, 40, account="user:a")
    commit_new_batch(db, 100, account="user:b")
    claimed = [image["account"] for _ in range(2) for image in claims.claim(db, "w", size, 60).images]
    assert (claimed.count("user:a"), claimed.count("user:b")) == (size, size)


def test_more_waiting_stores_than_a_claim_considers_do_not_delay_another_account(db: Db) -> None:
    _commit_for_later(db, 200, priority="high", account="user:a")
    commit_new_batch(db, 8, account="user:b")
    claimed = [claims.claim(db, "w", 1, 60).images for _ in range(4)]
    assert [image["account"] for images in claimed for image in images] == ["user:b"] * 4


def test_a_claim_restores_turns_if_none_is_left(db: Db) -> None:
    """Code of the version before writes others, and an image that it has released waits in none."""
    for store in ("east", "north"):
        commit_new_batch(db, 2, store, account="user:a")
    _commit_for_later(db, 1, account="user:a")
    db.images.update_many({"store_name": {"$in": ["east", "north"]}}, {"$set": {"work.not_before": utc_now()}})
    db.store_turns.delete_many({"store": {"$in": ["east", "north"]}})
    assert [image["store_name"] for image in claims.claim(db, "w", 8, 60).images] == ["east", "east", "north", "north"]
    for collection in (db.account_turns, db.store_turns):
        collection.delete_many({})
    commit_new_batch(db, 1, "north", account="user:b")
    for collection in (db.account_turns, db.store_turns):
        collection.update_many({}, {"$set": {"pending": False}})
    assert [image["account"] for image in claims.claim(db, "w", 8, 60).images] == ["user:b"]
    validate_documents(db)


def test_stores_beyond_those_that_a_claim_lists_keep_the_turn_of_their_account(db: Db) -> None:
    for number in range(40):
        commit_new_batch(db, 1, f"store {number}")
    process_all(db)
    for store in db.store_turns.find():
        db.store_turns.update_one({"_id": store["_id"]}, {"$set": {"pending": True}})
    db.account_turns.update_one({}, {"$set": {"pending": True}})
    commit_new_batch(db, 1, "store 7")
    assert len(claims.claim(db, "w", 8, 60).images) == 1
    assert not claims.claim(db, "w", 8, 60).images
    assert listed(db) == []


def test_a_turn_that_was_lost_in_a_crash_is_restored(db: Db) -> None:
    for store in ("east", "north", "south"):
        commit_new_batch(db, 1, store)
    commit_new_batch(db, 1, "west", account="user:a", priority="high")
    db.store_turns.delete_one({"store": "north"})
    db.store_turns.update_one({"store": "south"}, {"$set": {"pending": False}})
    db.account_turns.delete_one({"_id": "user:a"})
    lost = [Turn(None, "normal", "north"), Turn(None, "normal", "south"), Turn("user:a", "high", "west")]
    assert turns.repair(db) == (lost, None)
    assert turns.repair(db) == ([], None)
    assert len(claims.claim(db, "w", 8, 60).images) == 4
    validate_documents(db)


def test_every_turn_is_found_once_whatever_the_account_the_priority_and_the_store_are(db: Db) -> None:
    found = {Turn(account, priority, store) for account in (None, "key:1", "user:a") for priority in PRIORITIES for store in ("$north", "a/b", "ÿ")}
    for turn in sorted(found, key=lambda turn: turn.id):
        commit_new_batch(db, 2, turn.store, account=turn.account, priority=turn.priority)
    db.images.update_many({"account": None, "store_name": "a/b"}, {"$unset": {"account": ""}})  # as code before accounts wrote them
    for collection in (db.account_turns, db.store_turns):
        collection.delete_many({})
    last: Turn | None = None
    restored: list[Turn] = []
    while True:
        added, last = turns.repair(db, last, limit=2)
        restored += added
        if last is None:
            break
    assert (len(restored), set(restored)) == (27, found)
    assert {store.turn for account in turns.list_waiting(db, 16) for store in account.stores} == found
    process_all(db)
    assert db.images.count_documents({"status": "queued"}) == 0


def test_work_that_arrives_while_a_turn_is_found_empty_keeps_the_turn(db: Db) -> None:
    commit_new_batch(db, 1)
    process_all(db)
    for collection in (db.account_turns, db.store_turns):
        collection.update_many({}, {"$set": {"pending": True}})
    (account,) = turns.list_waiting(db, 4)
    (store,) = account.stores
    commit_new_batch(db, 1)  # between the read and the removal
    turns.remove_store(db, store)
    turns.remove_account(db, account)
    assert turns.list_waiting(db, 4) == [AccountTurn("open", account.seq + 1, (StoreTurn(store.turn, store.seq + 1),))]


def test_a_store_of_two_accounts_with_several_priorities_has_as_many_turns(db: Db) -> None:
    for account in ("user:a", "user:b"):
        for priority in PRIORITIES:
            commit_new_batch(db, 1, account=account, priority=priority)
    found = turns.list_waiting(db, 4)
    assert [account.id for account in found] == ["user:a", "user:b"]
    for waiting in found:
        assert [store.turn for store in waiting.stores] == [Turn(waiting.id, priority, "north") for priority in PRIORITIES]


def test_those_that_are_served_together_come_again_in_the_same_order(db: Db) -> None:
    for account in ("a", "b", "c"):
        commit_new_batch(db, 20, account=account)
    served = [[image["account"] for image in claims.claim(db, "w", 4, 60).images] for _ in range(6)]
    assert [sorted(set(accounts)) for accounts in served] == [["a", "b"], ["a", "c"], ["b", "c"]] * 2


def test_concurrent_first_batches_of_a_store_give_it_one_turn(db: Db) -> None:
    barrier = threading.Barrier(8)
    errors: list[Exception] = []
    new = [Turn(None, "normal", "new"), Turn(None, "high", "newer")]

    def touch() -> None:
        barrier.wait()
        try:
            turns.touch(db, new)
        except Exception as error:  # noqa: BLE001 -- checked by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=touch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(turn["seq"] for turn in db.store_turns.find()) == [8, 8]
    assert [turn["seq"] for turn in db.account_turns.find()] == [8]


def test_the_priorities_of_turns_are_those_of_the_images(db: Db) -> None:
    ids: dict[Priority, str] = {priority: commit_new_batch(db, 1, priority=priority) for priority in PRIORITIES}
    stored = {priority: db.images.find_one({"batch_id": ids[priority]}) for priority in PRIORITIES}
    assert {priority: (image or {})["work"].get("priority") for priority, image in stored.items()} == {"high": "high", "normal": None, "low": "low"}
    assert [turns.turn_of(image or {}).priority for image in stored.values()] == list(PRIORITIES)
    validate_documents(db)
