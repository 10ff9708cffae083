"""A result is stored once, under a valid fence; a batch is closed once."""

import threading
from datetime import timedelta

from shared.ledger import claims, closing, commits, deletion, queries, results
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
    (good_id, good_fence), (bad_id, bad_fence) = claimed_fences(claim)
    stored = results.finish(
        db,
        "w",
        [
            Result(
                good_id, good_fence, {"width": 7, "detections": [{"label": "apple", "score": 0.9, "box": [0, 0, 1, 1]}]}
            ),
            Result(bad_id, bad_fence, None, ("corrupt", "Broken.")),
        ],
    )
    assert stored == {good_id, bad_id}
    image = queries.get_image(db, good_id, None)
    assert (image["status"], image["width"], image["error"]) == ("done", 7, None)
    assert image["finished_at"] is not None
    assert queries.get_image(db, bad_id, None)["error"] == {"code": "corrupt", "detail": "Broken."}
    assert closing.close_batches(db, [batch_id]) == [batch_id]
    shown = queries.get_batch(db, batch_id, None)
    assert (shown["status"], shown["counts"]["done"], shown["counts"]["failed"]) == ("partial", 1, 1)
    validate_documents(db)


def test_a_worker_with_an_old_fence_writes_nothing_even_after_its_successor_finished(db: Db) -> None:
    commit_new_batch(db, 1)
    frozen = claims.claim(db, "w1", 8, 60)
    expire_leases(db, [frozen.images[0]["_id"]])
    claims.expire_leases(db)
    assert results.finish(db, "w1", successful_results(frozen, width=666)) == set()  # queued again
    successor = claims.claim(db, "w2", 8, 60)
    assert (
        results.finish(db, "w1", successful_results(frozen, width=666)) == set()
    )  # processing, held by another worker
    assert len(results.finish(db, "w2", successful_results(successor, width=5))) == 1
    assert results.finish(db, "w1", successful_results(frozen, width=666)) == set()  # done
    assert queries.get_image(db, successor.images[0]["_id"], None)["width"] == 5


def test_an_owner_cannot_store_its_old_result_under_a_new_fence(db: Db) -> None:
    commit_new_batch(db, 1)
    first = claims.claim(db, "w", 8, 60)
    claims.release(db, "w", claimed_fences(first), "stop", delay=False)
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


def test_finishing_twice_reports_the_result_as_stored_twice_and_changes_nothing(db: Db) -> None:
    commit_new_batch(db, 1)
    claim = claims.claim(db, "w", 8, 60)
    image_id = claim.images[0]["_id"]
    assert results.finish(db, "w", successful_results(claim, width=1)) == {
        image_id
    }  # as when the response is lost and the write is sent again
    assert results.finish(db, "w", successful_results(claim, width=2)) == {image_id}
    assert queries.get_image(db, image_id, None)["width"] == 1


def test_nothing_can_be_finished_in_a_batch_under_deletion(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    claim = claims.claim(db, "w", 8, 60)
    deletion.begin_delete(db, batch_id, None)
    assert results.finish(db, "w", successful_results(claim)) == set()
    assert claims.renew(db, "w", claimed_fences(claim), 60) == set()
    assert claims.release(db, "w", claimed_fences(claim), "stop") == 0
    assert closing.close_batches(db, [batch_id]) == []


def test_a_batch_that_many_workers_process_is_closed_and_reported(db: Db) -> None:
    batch_ids = [commit_new_batch(db, 24) for _ in range(6)]
    closed: set[str] = set()
    lock = threading.Lock()

    def run(owner: str) -> None:
        while (claim := claims.claim(db, owner, 5, 60)).images:
            results.finish(db, owner, successful_results(claim))
            closed_here = closing.close_batches(db, {image["batch_id"] for image in claim.images})
            with lock:
                closed.update(closed_here)

    threads = [threading.Thread(target=run, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process_all(db)
    assert closed == set(batch_ids)
    assert db.batches.count_documents({"status": "done", "open": {"$exists": False}}) == 6


def test_a_batch_left_open_by_a_crash_is_found(db: Db) -> None:
    waiting, unclosed = commit_new_batch(db, 1, "later"), commit_new_batch(db, 1, "now")
    later = {"work.not_before": utc_now() + timedelta(days=1)}
    db.images.update_one({"batch_id": waiting}, {"$set": later})
    claim = claims.claim(db, "w", 8, 60)
    results.finish(db, "w", successful_results(claim))  # and the worker dies here
    assert queries.get_batch(db, unclosed, None)["status"] == "processing"  # shown as finished only after it is closed
    assert closing.find_closable(db) == [unclosed]
    assert closing.close_batches(db, [unclosed, waiting]) == [unclosed]
    assert closing.find_closable(db) == []


def test_the_state_of_a_batch_follows_its_images(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    assert queries.get_batch(db, batch_id, None)["status"] == "queued"
    claim = claims.claim(db, "w", 1, 60)
    processing = queries.get_batch(db, batch_id, None)
    assert processing["status"] == "processing"
    assert processing["counts"] == {"queued": 1, "processing": 1, "done": 0, "failed": 0, "cancelled": 0}
    results.finish(db, "w", [Result(*claimed_fences(claim)[0], None, ("corrupt", "x"))])
    assert not queries.is_closed(db, batch_id, None)
    claim = claims.claim(db, "w", 1, 60)
    results.finish(db, "w", [Result(*claimed_fences(claim)[0], None, ("corrupt", "x"))])
    closing.close_batches(db, [batch_id])
    assert queries.is_closed(db, batch_id, None)
    assert queries.get_batch(db, batch_id, None)["status"] == "failed"


def test_an_abandoned_batch_is_never_closed(db: Db) -> None:
    batch_id = commit_new_batch(db)
    assert not commits.abandon(db, batch_id)
    assert closing.close_batches(db, [batch_id, "0" * 32]) == []


def test_a_barcode_that_is_corrected_during_the_processing_is_compared_with_what_was_read(db: Db) -> None:
    commit_new_batch(db, 3, barcode="5901234123457")
    claim = claims.claim(db, "w", 8, 60)
    read = [{"format": "EAN-13", "text": "4006381333931", "box": [0, 0, 1, 1]}]
    fields = {"barcodes": read, "barcode_check": "mismatch"}
    corrected, same, lost = (lease.id for lease in claim.leases)
    db.images.update_one({"_id": corrected}, {"$set": {"barcode": "4006381333931"}})
    db.images.update_one({"_id": lost}, {"$inc": {"work.fence": 1}})
    finished = [Result(lease.id, lease.fence, fields, barcode="5901234123457") for lease in claim.leases]
    assert results.finish(db, "w", finished) == {corrected, same}
    checks = [queries.get_image(db, image_id, None)["barcode_check"] for image_id in (corrected, same, lost)]
    assert checks == ["match", "mismatch", None]
