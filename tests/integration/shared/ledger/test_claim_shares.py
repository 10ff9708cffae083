"""How the stores share the images and the bytes of a claim."""

import pytest

from shared.ledger import claims, results, store_rotation
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, process_all, successful_results


@pytest.mark.slow
def test_a_small_batch_behind_a_huge_store_is_done_within_three_claims_a_worker(db: Db) -> None:
    for _ in range(100):
        commit_new_batch(db, 1000, "huge")
    workers = ["w1", "w2", "w3"]
    for worker in workers:  # the huge store is already served
        claims.claim(db, worker, 32, 60)
    small = commit_new_batch(db, 5, "small")
    for _ in range(3):
        for worker in workers:
            claim = claims.claim(db, worker, 32, 60)
            assert len(claim.images) == 32
            results.finish(db, worker, successful_results(claim))
    assert db.images.count_documents({"batch_id": small, "status": "done"}) == 5


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
    assert len({turn["served_at"] for turn in store_rotation.list_waiting(db, 3)}) == 1  # all three were served


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
