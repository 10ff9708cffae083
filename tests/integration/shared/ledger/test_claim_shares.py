"""How accounts and stores share the images and the bytes of a claim."""

from collections import Counter
from typing import Any

import pytest

from shared.ledger import claims, results, turns
from shared.ledger.claims import Claim
from shared.ledger.turns import Turn
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, process_all, successful_results


@pytest.mark.slow
def test_a_small_batch_behind_a_hundred_thousand_images_is_done_within_three_claims_a_worker(db: Db) -> None:
    for _ in range(100):
        commit_new_batch(db, 1000, "huge", account="user:a")
    workers = ["w1", "w2", "w3"]
    for worker in workers:  # the huge store is already served
        claims.claim(db, worker, 32, 60)
    small: list[dict[str, Any]] = [
        {"store": "small", "account": "user:a"},
        {"store": "huge", "account": "user:b"},
        {"store": "huge", "account": None},
        {"store": "huge", "account": "user:a", "priority": "high"},
        {"store": "small", "account": "user:b", "priority": "low"},
    ]
    for fields in small:
        batch_id = commit_new_batch(db, 5, **fields)
        for _ in range(3):
            for worker in workers:
                claim = claims.claim(db, worker, 32, 60)
                assert len(claim.images) == 32
                results.finish(db, worker, successful_results(claim))
        assert db.images.count_documents({"batch_id": batch_id, "status": "done"}) == 5


def shares(claim: Claim) -> Counter[Turn]:
    """Return the number of images in a claim for each account, priority and store."""
    return Counter(turns.turn_of(image) for image in claim.images)


def test_accounts_share_a_claim_and_so_do_the_stores_of_each(db: Db) -> None:
    for store in ("north", "south", "west"):
        commit_new_batch(db, 40, store, account="user:a")
    commit_new_batch(db, 40, "north", account="user:b")
    commit_new_batch(db, 40, "east")
    first, second, third = (shares(claims.claim(db, "w", 32, 60)) for _ in range(3))
    assert first == {Turn("user:a", "normal", "north"): 8, Turn("user:a", "normal", "south"): 8, Turn("user:b", "normal", "north"): 16}
    assert second == {Turn(None, "normal", "east"): 16, Turn("user:a", "normal", "west"): 8, Turn("user:a", "normal", "north"): 8}
    assert third == {Turn("user:b", "normal", "north"): 16, Turn(None, "normal", "east"): 16}


def test_priorities_order_the_images_of_an_account_and_not_those_of_others(db: Db) -> None:
    commit_new_batch(db, 10, "north", account="user:a", priority="low")
    commit_new_batch(db, 10, "south", account="user:a")
    commit_new_batch(db, 6, "west", account="user:a", priority="high")
    commit_new_batch(db, 6, "north", account="user:a", priority="high")
    commit_new_batch(db, 40, "north", account="user:b", priority="low")
    found = [shares(claims.claim(db, "w", 16, 60)) for _ in range(4)]
    of_a = [{(turn.priority, turn.store): count for turn, count in claim.items() if turn.account == "user:a"} for claim in found]
    assert of_a == [
        {("high", "west"): 4, ("high", "north"): 4},
        {("high", "west"): 2, ("high", "north"): 2, ("normal", "south"): 4},
        {("normal", "south"): 6, ("low", "north"): 2},
        {("low", "north"): 8},
    ]
    assert [claim[Turn("user:b", "low", "north")] for claim in found] == [8] * 4


def test_images_of_a_higher_priority_that_arrive_later_are_claimed_first(db: Db) -> None:
    commit_new_batch(db, 20)
    claims.claim(db, "w", 4, 60)
    commit_new_batch(db, 3, priority="high")
    assert shares(claims.claim(db, "w", 4, 60)) == {Turn(None, "high", "north"): 3, Turn(None, "normal", "north"): 1}


def test_a_store_gets_at_most_half_while_another_waits(db: Db) -> None:
    commit_new_batch(db, 100, "huge")
    commit_new_batch(db, 100, "other")
    stores = [image["store_name"] for image in claims.claim(db, "w", 32, 60).images]
    assert (stores.count("huge"), stores.count("other")) == (16, 16)


def test_the_places_that_no_other_store_needs_go_to_the_larger_one(db: Db) -> None:
    commit_new_batch(db, 100, "huge")
    commit_new_batch(db, 3, "small")
    stores = [image["store_name"] for image in claims.claim(db, "w", 32, 60).images]
    assert (stores.count("huge"), stores.count("small")) == (29, 3)


@pytest.mark.parametrize(("max_bytes", "expected"), [(3500, 3), (3000, 3), (1, 1), (999, 1)])
def test_a_claim_is_bounded_by_bytes_but_always_has_one_image(db: Db, max_bytes: int, expected: int) -> None:
    commit_new_batch(db, 8)  # of 1,000 bytes each
    claim = claims.claim(db, "w", 8, 60, max_bytes=max_bytes)
    assert len(claim.images) == expected
    assert claim.full  # further images are claimable
    assert len(claims.claim(db, "w", 8, 60).images) == 8 - expected


def test_a_claim_that_takes_everything_within_its_bytes_is_not_full(db: Db) -> None:
    commit_new_batch(db, 3)
    assert not claims.claim(db, "w", 8, 60, max_bytes=3000).full


@pytest.mark.parametrize("file_size", [2000, 1000])
def test_a_claim_is_full_while_other_stores_wait_for_its_bytes(db: Db, file_size: int) -> None:
    """Otherwise no other worker is woken, and one of them processes the images of all stores."""
    for store in ("a", "b", "c"):
        commit_new_batch(db, 1, store, file_size=file_size)
    found = [claims.claim(db, "w", 8, 60, max_bytes=1000) for _ in range(4)]
    assert [len(claim.images) for claim in found] == [1, 1, 1, 0]
    assert (found[0].full, found[1].full, found[3].full) == (True, True, False)


def test_a_claim_is_full_while_an_image_that_must_be_alone_waits(db: Db) -> None:
    commit_new_batch(db, 1, "a")
    commit_new_batch(db, 1, "b")
    db.images.update_many({"store_name": "b"}, {"$set": {"work.solo": True}})
    found = [claims.claim(db, "w", 8, 60) for _ in range(2)]
    assert [(len(claim.images), claim.full) for claim in found] == [(1, True), (1, True)]


def test_a_claim_is_full_while_more_stores_wait_than_it_reads(db: Db) -> None:
    for number in range(20):
        commit_new_batch(db, 1, f"store {number:02}")
    found = [claims.claim(db, "w", 64, 60) for _ in range(2)]
    assert [(len(claim.images), claim.full) for claim in found] == [(16, True), (4, False)]


def test_stores_share_the_bytes_of_a_claim(db: Db) -> None:
    commit_new_batch(db, 20, "large", file_size=4000)
    commit_new_batch(db, 20, "small", file_size=1000)
    for _ in range(2):
        claim = claims.claim(db, "w", 20, 60, max_bytes=16_000)
        stores = [image["store_name"] for image in claim.images]
        assert (stores.count("large"), stores.count("small")) == (2, 8)
        assert claim.full


def test_the_bytes_that_no_other_store_needs_go_to_the_larger_one(db: Db) -> None:
    commit_new_batch(db, 20, "large", file_size=4000)
    commit_new_batch(db, 2, "small", file_size=1000)
    claim = claims.claim(db, "w", 20, 60, max_bytes=16_000)
    stores = [image["store_name"] for image in claim.images]
    assert (stores.count("large"), stores.count("small")) == (3, 2)


def test_an_image_larger_than_half_of_a_claim_is_claimed_when_no_other_store_needs_the_bytes(db: Db) -> None:
    commit_new_batch(db, 1, "small", file_size=1000)
    commit_new_batch(db, 2, "large", file_size=9000)
    commit_new_batch(db, 1, "later", file_size=1000)
    claim = claims.claim(db, "w", 8, 60, max_bytes=16_000)
    assert [image["store_name"] for image in claim.images] == ["small", "large", "later"]
    assert claim.full
    (account,) = turns.list_waiting(db, 4)
    assert [store.turn.store for store in account.stores] == ["small", "large", "later"]  # all were served


def test_a_store_whose_image_no_longer_fits_is_served_first_by_the_next_claim(db: Db) -> None:
    commit_new_batch(db, 4, "small", file_size=1000)
    commit_new_batch(db, 2, "huge", file_size=50_000)
    first, second, third = (claims.claim(db, "w", 8, 60, max_bytes=10_000) for _ in range(3))
    assert [image["store_name"] for image in first.images] == ["small"] * 4
    assert [image["store_name"] for image in second.images] == ["huge"]
    assert [image["store_name"] for image in third.images] == ["huge"]
    assert (first.full, second.full, third.full) == (True, True, False)


def test_forty_stores_take_turns(db: Db) -> None:
    for number in range(40):
        commit_new_batch(db, 10, f"store {number:02}")
    served: list[str] = []
    for _ in range(20):  # two stores fill a claim of 8, four images each
        claim = claims.claim(db, "w", 8, 60)
        served += sorted({image["store_name"] for image in claim.images})
    assert len(served) == len(set(served)) == 40
    process_all(db)
    assert db.images.count_documents({"status": "queued"}) == 0


def test_forty_accounts_take_turns(db: Db) -> None:
    for number in range(40):
        commit_new_batch(db, 10, account=f"user:{number:02}")
    served: list[str] = []
    for _ in range(20):
        claim = claims.claim(db, "w", 8, 60)
        served += sorted({image["account"] for image in claim.images})
    assert len(served) == len(set(served)) == 40
    process_all(db)
    assert db.images.count_documents({"status": "queued"}) == 0


def test_an_account_whose_large_image_no_longer_fits_is_served_first_by_the_next_claim(db: Db) -> None:
    commit_new_batch(db, 4, account="user:a", file_size=1000)
    commit_new_batch(db, 2, account="user:b", file_size=50_000)
    commit_new_batch(db, 4, account="user:c", file_size=1000)
    found = [claims.claim(db, "w", 8, 60, max_bytes=10_000) for _ in range(4)]
    assert [[image["account"] for image in claim.images] for claim in found] == [["user:a"] * 4, ["user:b"], ["user:c"] * 4, ["user:b"]]
    assert all(claim.full for claim in found)
