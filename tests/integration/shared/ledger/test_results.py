"""A result lands once, under a valid fence; a batch closes once."""

import threading
from datetime import timedelta

from shared.ledger import claims, commits, deletion, queries, results
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.ledger import (
    claimed_fences,
    commit_new_batch,
    expire_leases,
    process_all,
    successful_results,
    utc_now,
    validate_documents,
)


def test_result_and_state_change_together(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    claim = claims.claim(db, "w", 8, 60)
    (good, good_fence), (bad, bad_fence) = claimed_fences(claim)
    stored = results.finish(
        db,
        "w",
        [
            Result(
                good, good_fence, {"width": 7, "detections": [{"label": "apple", "score": 0.9, "box": [0, 0, 1, 1]}]}
            ),
            Result(bad, bad_fence, None, ("corrupt", "Broken.")),
        ],
    )
    assert stored == {good, bad}
    image = queries.get_image(db, good)
    assert (image["status"], image["width"], image["error"]) == ("done", 7, None)
    assert image["finished_at"] is not None
    assert queries.get_image(db, bad)["error"] == {"code": "corrupt", "detail": "Broken."}
    assert results.close_batches(db, [batch_id]) == [batch_id]
    shown = queries.get_batch(db, batch_id)
    assert (shown["status"], shown["counts"]["done"], shown["counts"]["failed"]) == ("partial", 1, 1)
    validate_documents(db)


def test_a_lost_fence_writes_nothing_even_after_the_heir_finished(db: Db) -> None:
    commit_new_batch(db, 1)
    frozen = claims.claim(db, "w1", 8, 60)
    expire_leases(db, [frozen.images[0]["_id"]])
    claims.expire_leases(db)
    assert results.finish(db, "w1", successful_results(frozen, width=666)) == set()  # queued again
    heir = claims.claim(db, "w2", 8, 60)
    assert results.finish(db, "w1", successful_results(frozen, width=666)) == set()  # processing, somebody else's
    assert len(results.finish(db, "w2", successful_results(heir, width=5))) == 1
    assert results.finish(db, "w1", successful_results(frozen, width=666)) == set()  # done
    assert queries.get_image(db, heir.images[0]["_id"])["width"] == 5


def test_the_same_owner_under_a_new_fence_does_not_accept_its_old_result(db: Db) -> None:
    commit_new_batch(db, 1)
    first = claims.claim(db, "w", 8, 60)
    claims.release(db, claimed_fences(first), "w", "stop", delay=False)
    second = claims.claim(db, "w", 8, 60)
    assert results.finish(db, "w", successful_results(first, width=666)) == set()
    assert results.finish(db, "w", successful_results(second, width=5)) == {second.images[0]["_id"]}


def test_a_partly_lost_claim_stores_what_is_still_held(db: Db) -> None:
    commit_new_batch(db, 3)
    claim = claims.claim(db, "w", 8, 60)
    lost = claim.images[1]["_id"]
    expire_leases(db, [lost])
    claims.expire_leases(db)
    assert results.finish(db, "w", successful_results(claim)) == {image["_id"] for image in claim.images} - {lost}


def test_finishing_twice_says_twice_that_it_stands_and_changes_nothing(db: Db) -> None:
    commit_new_batch(db, 1)
    claim = claims.claim(db, "w", 8, 60)
    name = claim.images[0]["_id"]
    assert results.finish(db, "w", successful_results(claim, width=1)) == {name}  # its answer was lost, so it is sent again
    assert results.finish(db, "w", successful_results(claim, width=2)) == {name}
    assert queries.get_image(db, name)["width"] == 1


def test_nothing_can_be_finished_in_a_batch_under_deletion(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    claim = claims.claim(db, "w", 8, 60)
    deletion.begin_delete(db, batch_id)
    assert results.finish(db, "w", successful_results(claim)) == set()
    assert claims.renew(db, claimed_fences(claim), "w", 60) == set()
    assert claims.release(db, claimed_fences(claim), "w", "stop") == 0
    assert results.close_batches(db, [batch_id]) == []


def test_of_many_finishers_at_once_exactly_one_closes(db: Db) -> None:
    batch_ids = [commit_new_batch(db, 24) for _ in range(6)]
    closed: list[str] = []
    lock = threading.Lock()

    def run(owner: str) -> None:
        while (claim := claims.claim(db, owner, 5, 60)).images:
            results.finish(db, owner, successful_results(claim))
            mine = results.close_batches(db, {image["batch_id"] for image in claim.images})
            with lock:
                closed.extend(mine)

    threads = [threading.Thread(target=run, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process_all(db)
    assert sorted(closed) == sorted(batch_ids)
    assert db.batches.count_documents({"status": "done", "open": {"$exists": False}}) == 6


def test_a_batch_that_a_crash_left_open_is_found(db: Db) -> None:
    waiting, left = commit_new_batch(db, 1, "later"), commit_new_batch(db, 1, "now")
    later = {"work.not_before": utc_now() + timedelta(days=1)}
    db.images.update_one({"batch_id": waiting}, {"$set": later})
    claim = claims.claim(db, "w", 8, 60)
    results.finish(db, "w", successful_results(claim))  # and dies here
    assert queries.get_batch(db, left)["status"] == "processing"  # shown finished only once it is closed
    assert results.find_unclosed(db) == [left]
    assert results.close_batches(db, [left, waiting]) == [left]
    assert results.find_unclosed(db) == []


def test_the_state_of_a_batch_follows_its_images(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    assert queries.get_batch(db, batch_id)["status"] == "queued"
    claim = claims.claim(db, "w", 1, 60)
    half = queries.get_batch(db, batch_id)
    assert half["status"] == "processing"
    assert half["counts"] == {"queued": 1, "processing": 1, "done": 0, "failed": 0, "cancelled": 0}
    results.finish(db, "w", [Result(*claimed_fences(claim)[0], None, ("corrupt", "x"))])
    assert not queries.is_closed(db, batch_id)
    claim = claims.claim(db, "w", 1, 60)
    results.finish(db, "w", [Result(*claimed_fences(claim)[0], None, ("corrupt", "x"))])
    results.close_batches(db, [batch_id])
    assert queries.is_closed(db, batch_id)
    assert queries.get_batch(db, batch_id)["status"] == "failed"


def test_an_abandoned_batch_is_never_closed(db: Db) -> None:
    batch_id = commit_new_batch(db)
    assert not commits.abandon(db, batch_id)
    assert results.close_batches(db, [batch_id, "0" * 32]) == []
