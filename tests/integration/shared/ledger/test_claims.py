"""Which images are claimed next: the stores take turns, images are tried alone where needed, and no image is claimed twice or kept forever."""

import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.ledger import claims, commits, results, store_rotation
from shared.queue.leases import Lease
from shared.states import SOLO_DEATHS_ALLOWED, SOLO_LOSSES_ALLOWED
from shared.storage.mongo import Db
from tests.support.ledger import (
    claimed_fences,
    commit_new_batch,
    expire_leases,
    new_batch,
    process_all,
    successful_results,
    utc_now,
    validate_documents,
)


def read_image(db: Db, image_id: str) -> dict[str, object]:
    found = db.images.find_one({"_id": image_id})
    assert found is not None
    return found


def set_not_before(db: Db, moment: datetime) -> None:
    """Let no image be claimed before a moment."""
    db.images.update_many({}, {"$set": {"work.not_before": moment}})


def test_a_claim_sets_owner_lease_and_the_next_fence(db: Db) -> None:
    commit_new_batch(db, 2)
    first = claims.claim(db, "w1", 1, 60)
    assert first.full
    image = read_image(db, first.images[0]["_id"])
    assert image["status"] == "processing"
    assert image["work"]["owner"] == "w1"  # type: ignore[index]
    assert image["work"]["fence"] == 1  # type: ignore[index]
    left = image["work"]["lease_until"] - utc_now()  # type: ignore[index]
    assert timedelta(seconds=50) < left <= timedelta(seconds=61)
    claims.release(db, "w1", claimed_fences(first), "stop", delay=False)
    again = claims.claim(db, "w2", 2, 60)
    assert sorted(image["work"]["fence"] for image in again.images) == [1, 2]
    validate_documents(db)


def test_small_batches_fill_one_claim(db: Db) -> None:
    for number in range(8):
        commit_new_batch(db, 2, f"store {number % 3}")
    assert len(claims.claim(db, "w", 16, 60).images) == 16


def test_a_claim_without_queued_images_is_empty_and_ends_the_stores_turn(db: Db) -> None:
    commit_new_batch(db, 1)
    process_all(db)
    assert claims.claim(db, "w", 4, 60) == claims.Claim("w", [], full=False)
    assert db.turns.count_documents({"pending": True}) == 0
    assert not claims.has_claimable(db)


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


def test_a_claim_reads_only_the_images_that_it_can_hold(db: Db) -> None:
    for number in range(12):
        commit_new_batch(db, 20, f"store {number:02}")
    db.command("profile", 2)
    claims.claim(db, "w", 8, 60)
    db.command("profile", 0)
    reads = list(db["system.profile"].find({"op": "query", "ns": f"{db.name}.images", "command.hint": "claimable"}))
    assert (
        sum(read["docsExamined"] for read in reads) <= 16
    )  # up to a whole claim of the first store, and the rest of it
    assert all("IXSCAN" in read["planSummary"] for read in reads)


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


def test_concurrent_workers_never_claim_the_same_image_and_leave_none(db: Db) -> None:
    for number in range(12):
        commit_new_batch(db, 20, f"store {number % 4}")
    claimed: list[str] = []
    lock = threading.Lock()

    def run(owner: str) -> None:
        while True:
            claim = claims.claim(db, owner, 7, 60)
            if not claim.images:
                return
            with lock:
                claimed.extend(image["_id"] for image in claim.images)

    threads = [threading.Thread(target=run, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed))
    store_rotation.repair(db)
    rest = claims.claim(db, "last", 256, 60)  # a worker for which others were faster in every round may have left some
    assert len(claimed) + len(rest.images) == 240
    assert not rest.images


def test_after_a_lost_lease_each_image_is_claimed_alone(db: Db) -> None:
    commit_new_batch(db, 3)
    lost = claims.claim(db, "w1", 8, 60)
    expire_leases(db, [image["_id"] for image in lost.images])
    assert claims.expire_leases(db) == 3
    for _ in range(3):
        claim = claims.claim(db, "w2", 8, 60)
        assert len(claim.images) == 1
        assert claim.images[0]["work"]["solo"]
        assert claim.full
        assert claim.images[0]["work"]["fence"] == 2
    assert not claims.claim(db, "w2", 8, 60).images


def test_images_that_must_be_tried_alone_do_not_delay_the_others(db: Db) -> None:
    commit_new_batch(db, 2)
    lost = claims.claim(db, "w1", 8, 60)
    expire_leases(db, [image["_id"] for image in lost.images])
    claims.expire_leases(db)
    commit_new_batch(db, 4, "other")
    sizes = [len(claims.claim(db, "w2", 8, 60).images) for _ in range(4)]
    assert sorted(sizes) == [0, 1, 1, 4]


def claim_alone(db: Db, owner: str = "w") -> claims.Claim:
    """Claim the only image, which is tried alone, as if its delay had passed."""
    set_not_before(db, utc_now() - timedelta(seconds=1))
    store_rotation.repair(db)
    claim = claims.claim(db, owner, 8, 60)
    assert [image["work"]["solo"] for image in claim.images] == [True]
    return claim


def lose(db: Db, claim: claims.Claim) -> dict[str, Any]:
    """End the leases of a claim as if its worker had died. Return the fields of the claim of the only image."""
    expire_leases(db, [image["_id"] for image in claim.images])
    assert claims.expire_leases(db) == len(claim.images)
    (image,) = db.images.find()
    work: dict[str, Any] = image["work"] | {
        "delay_s": (image["work"]["not_before"] - image["updated_at"]).total_seconds()
    }
    return work


def test_attempts_alone_in_which_the_worker_dies_are_counted_and_wait_longer_each_time(db: Db) -> None:
    commit_new_batch(db, 1)
    work = lose(db, claims.claim(db, "w", 8, 60))  # several images may have been in progress, so nothing is counted
    assert (work["losses"], work["delay_s"]) == (0, 0)
    delays = []
    for losses in range(1, SOLO_LOSSES_ALLOWED + 1):
        claim = claim_alone(db)
        assert not claims.is_exhausted(claim.images[0])
        assert claims.begin_solo(db, "w", claim.leases[0])
        work = lose(db, claim)
        assert (work["losses"], work["faults"]) == (losses, 0)
        delays.append(work["delay_s"])
    assert delays[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert claims.is_exhausted(claim_alone(db).images[0])
    validate_documents(db)


def test_an_attempt_alone_that_had_not_begun_when_the_worker_died_is_not_counted(db: Db) -> None:
    commit_new_batch(db, 1)
    lose(db, claims.claim(db, "w", 8, 60))
    begun = claim_alone(db)
    assert claims.begin_solo(db, "w", begun.leases[0])
    claims.release(db, "w", begun.leases, "disk_full")
    work = lose(db, claim_alone(db))
    assert (work["losses"], work["faults"], work["delay_s"]) == (0, 0, 0)


def test_only_the_holder_can_begin_an_attempt(db: Db) -> None:
    commit_new_batch(db, 1)
    lose(db, claims.claim(db, "w", 8, 60))
    (lease,) = claim_alone(db).leases
    assert not claims.begin_solo(db, "another", lease)
    assert not claims.begin_solo(db, "w", Lease(lease.id, lease.fence + 1))


def test_kills_and_faults_count_only_if_the_image_was_processed_alone(db: Db) -> None:
    commit_new_batch(db, 1)
    claim = claims.claim(db, "w", 8, 60)
    for losses in range(2):
        claims.release(db, "w", claim.leases, "helper_killed", solo=True, loss=True)
        assert db.images.count_documents({"work.losses": losses, "work.faults": 0}) == 1
        claim = claim_alone(db)
    for faults in range(1, SOLO_DEATHS_ALLOWED + 1):
        assert not claims.is_exhausted(claim.images[0])
        claims.release(db, "w", claim.leases, "KeyError", solo=True, fault=True)
        assert db.images.count_documents({"work.losses": 1, "work.faults": faults}) == 1
        claim = claim_alone(db)
    assert claims.is_exhausted(claim.images[0])
    validate_documents(db)


def test_losses_of_images_that_an_earlier_release_requeued_count_from_zero(db: Db) -> None:
    commit_new_batch(db, 1)
    lose(db, claims.claim(db, "w", 8, 60))
    db.images.update_many({}, {"$unset": {"work.losses": ""}})
    claim = claim_alone(db)
    assert not claims.is_exhausted(claim.images[0])
    claims.begin_solo(db, "w", claim.leases[0])
    assert lose(db, claim)["losses"] == 1


def test_a_lease_that_is_not_renewed_ends(db: Db) -> None:
    commit_new_batch(db, 2)
    (kept,), (lost,) = (claims.claim(db, "w1", 1, lease_s).images for lease_s in (60, 0.01))
    time.sleep(0.1)
    assert claims.expire_leases(db) == 1
    assert [read_image(db, image["_id"])["status"] for image in (kept, lost)] == ["processing", "queued"]


def test_a_renewed_lease_continues_and_a_lost_one_is_reported(db: Db) -> None:
    commit_new_batch(db, 2)
    claim = claims.claim(db, "w1", 8, 0.3)
    kept, lost = claimed_fences(claim)
    assert claims.renew(db, "w1", claimed_fences(claim), 60) == {kept, lost}
    time.sleep(0.4)
    assert claims.expire_leases(db) == 0
    expire_leases(db, [lost.id])
    claims.expire_leases(db)
    assert claims.renew(db, "w1", claimed_fences(claim), 60) == {kept}
    claims.claim(db, "w1", 8, 60)  # a new claim of the same owner does not revive the old one
    assert claims.renew(db, "w1", claimed_fences(claim), 60) == {kept}


def test_a_batch_accepted_by_a_host_with_a_fast_clock_is_claimed_at_once(db: Db) -> None:
    ahead = replace(new_batch(2), created_at=utc_now() + timedelta(hours=1))
    commits.commit_batch(db, ahead)
    store_rotation.repair(db)
    assert len(claims.claim(db, "w", 4, 60).images) == 2


def test_releases_wait_longer_each_time_and_never_count(db: Db) -> None:
    commit_new_batch(db, 1)
    delays = []
    for _ in range(8):
        claim = claims.claim(db, "w", 1, 60)
        assert claims.release(db, "w", claimed_fences(claim), "$disk_full") == 1
        image = read_image(db, claim.images[0]["_id"])
        delays.append((image["work"]["not_before"] - image["updated_at"]).total_seconds())  # type: ignore[index]
        assert (image["status"], image["error"], image["work"]["solo"]) == ("queued", None, False)  # type: ignore[index]
        assert image["work"]["released_for"] == "$disk_full"  # type: ignore[index]
        set_not_before(db, utc_now() + timedelta(hours=1))  # a second may pass before the next line
        assert not claims.claim(db, "w", 1, 60).images
        set_not_before(db, utc_now())
        store_rotation.repair(db)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    validate_documents(db)


def test_a_store_whose_images_wait_for_a_later_moment_keeps_its_turn_and_delays_no_other(db: Db) -> None:
    commit_new_batch(db, 2, "waiting")
    claims.release(db, "w", claimed_fences(claims.claim(db, "w", 8, 60)), "disk_full")
    set_not_before(db, utc_now() + timedelta(hours=1))
    commit_new_batch(db, 1, "ready")
    assert [image["store_name"] for image in claims.claim(db, "w", 8, 60).images] == ["ready"]
    assert db.turns.count_documents({"_id": "waiting", "pending": True}) == 1
    set_not_before(db, utc_now())
    assert len(claims.claim(db, "w", 8, 60).images) == 2


@pytest.mark.parametrize("change", ["owner", "fence"])
def test_only_the_holder_can_release(db: Db, change: str) -> None:
    commit_new_batch(db, 1)
    claim = claims.claim(db, "w1", 1, 60)
    owner, fence = ("w2", 1) if change == "owner" else ("w1", 0)
    assert claims.release(db, owner, [Lease(claim.images[0]["_id"], fence)], "x") == 0
    assert read_image(db, claim.images[0]["_id"])["status"] == "processing"


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
