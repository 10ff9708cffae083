"""What a claim sets, and that concurrent workers claim no image twice and leave none."""

import threading
from dataclasses import replace
from datetime import timedelta

from shared.ledger import claims, commits, turns
from shared.storage.mongo import Db
from tests.integration.shared.ledger.claiming import read_image
from tests.support.ledger import claimed_fences, commit_new_batch, new_batch, process_all, utc_now, validate_documents


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


def test_a_claim_without_queued_images_is_empty_and_ends_the_turns(db: Db) -> None:
    commit_new_batch(db, 1)
    process_all(db)
    assert claims.claim(db, "w", 4, 60) == claims.Claim("w", [], full=False)
    assert db.store_turns.count_documents({"pending": True}) == db.account_turns.count_documents({"pending": True}) == 0
    assert not claims.has_claimable(db)


def test_a_claim_reads_only_the_images_that_it_can_hold(db: Db) -> None:
    for number in range(12):
        commit_new_batch(db, 20, f"store {number:02}")
    db.command("profile", 2)
    claims.claim(db, "w", 8, 60)
    db.command("profile", 0)
    reads = list(db["system.profile"].find({"op": "query", "ns": f"{db.name}.images", "command.hint": turns.CLAIMABLE}))
    assert (
        sum(read["docsExamined"] for read in reads) <= 16
    )  # up to a whole claim of the first store, and the rest of it
    assert all("IXSCAN" in read["planSummary"] for read in reads)


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
    turns.repair(db)
    rest = claims.claim(db, "last", 256, 60)  # a worker for which others were faster in every round may have left some
    assert len(claimed) + len(rest.images) == 240
    assert not rest.images


def test_a_batch_accepted_by_a_host_with_a_fast_clock_is_claimed_at_once(db: Db) -> None:
    ahead = replace(new_batch(2), created_at=utc_now() + timedelta(hours=1))
    commits.commit_batch(db, ahead)
    turns.repair(db)
    assert len(claims.claim(db, "w", 4, 60).images) == 2
