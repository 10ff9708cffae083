"""A cancelled batch: its queued images end, and those that workers hold are finished or end when their lease does."""

import threading
from contextlib import suppress

import pytest

from shared.errors import Conflict, Forbidden, NotFound
from shared.ids import new_batch_id
from shared.ledger import audit, cancellation, claims, closing, deletion, queries, reprocessing, results
from shared.ledger.cancellation import Cancelled, Mark
from shared.ledger.reprocessing import Options
from shared.storage.mongo import Db
from tests.support.ledger import (
    commit_new_batch,
    expire_leases,
    failed_results,
    process_all,
    successful_results,
    validate_documents,
)


def _states(db: Db, batch_id: str) -> list[str]:
    return [image["status"] for image in db.images.find({"batch_id": batch_id}).sort("index", 1)]


def test_queued_images_end_at_once_and_the_batch_is_closed(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    assert cancellation.cancel(db, batch_id, None) == Cancelled(3, 0)
    header = queries.get_batch(db, batch_id, None)
    assert (header["status"], header["counts"]["cancelled"], header["finished_at"] is not None) == ("cancelled", 3, True)
    assert all(image["finished_at"] is not None for image in db.images.find({"batch_id": batch_id}))
    assert claims.claim(db, "w", 8, 60).images == []
    assert audit.balance(db)["cancelled"] == 3
    validate_documents(db)


def test_running_images_are_finished(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    claim = claims.claim(db, "w", 2, 60)
    assert cancellation.cancel(db, batch_id, None) == Cancelled(1, 2)
    assert queries.get_batch(db, batch_id, None)["status"] == "processing"
    assert len(results.finish(db, "w", successful_results(claim))) == 2
    assert closing.close_batches(db, [batch_id]) == [batch_id]
    header = queries.get_batch(db, batch_id, None)
    assert (header["status"], header["counts"]["done"], header["counts"]["cancelled"]) == ("cancelled", 2, 1)
    assert db.batches.count_documents({"cancelling": True}) == 0


@pytest.mark.parametrize("loss", ["expired", "released"])
def test_running_images_that_their_worker_loses_end_with_the_next_tick_of_the_sweep(db: Db, loss: str) -> None:
    batch_id = commit_new_batch(db, 2)
    claim = claims.claim(db, "w", 1, 60)
    cancellation.cancel(db, batch_id, None)
    if loss == "expired":
        expire_leases(db, [claim.images[0]["_id"]])
        claims.expire_leases(db)
    else:
        claims.release(db, "w", claim.leases, "disk_full")
    marked = cancellation.find_cancelling(db, "", 10)
    assert marked == {batch_id: Mark(0, None)}
    assert cancellation.end_queued(db, marked) == 1
    assert closing.close_batches(db, [batch_id]) == [batch_id]
    assert _states(db, batch_id) == ["cancelled", "cancelled"]
    assert results.finish(db, "w", successful_results(claim)) == set()
    assert cancellation.find_cancelling(db, "", 10) == {}


def test_a_closed_batch_is_not_cancelled(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    process_all(db)
    with pytest.raises(Conflict) as caught:
        cancellation.cancel(db, batch_id, None)
    assert caught.value.code == "batch_closed"
    assert _states(db, batch_id) == ["done"]


def test_foreign_unknown_and_deleted_batches_are_refused(db: Db) -> None:
    batch_id = commit_new_batch(db, store=["north", "south"])
    with pytest.raises(Forbidden):
        cancellation.cancel(db, batch_id, frozenset({"south"}))
    with pytest.raises(NotFound):
        cancellation.cancel(db, new_batch_id(), None)
    deletion.begin_delete(db, batch_id, None)
    with pytest.raises(NotFound):
        cancellation.cancel(db, batch_id, None)


def test_cancelling_a_reprocessing_gives_each_image_its_last_result_back(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    claim = claims.claim(db, "w", 8, 60)
    results.finish(db, "w", [successful_results(claim)[0], failed_results(claim)[1]])
    claims.release(db, "w", [claim.leases[2]], "stopping", delay=False)
    cancellation.cancel(db, batch_id, None)
    before = list(db.images.find({"batch_id": batch_id}).sort("index", 1))
    assert _states(db, batch_id) == ["done", "failed", "cancelled"]
    assert reprocessing.reprocess(db, batch_id, {}, Options(), None).queued == 3
    assert cancellation.cancel(db, batch_id, None) == Cancelled(3, 0)
    after = list(db.images.find({"batch_id": batch_id}).sort("index", 1))
    for name in ("status", "error", "finished_at", "width"):
        assert [image[name] for image in after] == [image[name] for image in before]


def test_a_cancellation_completes_a_reprocessing_that_was_interrupted_and_ends_it(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = commit_new_batch(db, 2)
    process_all(db)
    with monkeypatch.context() as patch:
        patch.setattr(reprocessing, "_complete", lambda *_: None)
        reprocessing.reprocess(db, batch_id, {}, Options(), None)
    assert cancellation.cancel(db, batch_id, None) == Cancelled(2, 0)
    assert queries.get_batch(db, batch_id, None)["status"] == "done"


def test_a_late_cancellation_does_not_end_images_that_were_queued_again_since(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    marked = {batch_id: Mark(0, None)}
    process_all(db)
    reprocessing.reprocess(db, batch_id, {}, Options(), None)
    assert cancellation.end_queued(db, marked) == 0
    assert _states(db, batch_id) == ["queued", "queued"]


def test_cancellations_while_workers_claim_and_finish_leave_no_image_behind(db: Db) -> None:
    batch_id = commit_new_batch(db, 60)
    held = claims.claim(db, "slow", 1, 60)  # so that the batch stays open until the requests have been made
    answers: list[int] = []

    def cancel() -> None:
        with suppress(Conflict):  # the batch is closed already
            answers.append(cancellation.cancel(db, batch_id, None).cancelled)

    threads = [
        *(threading.Thread(target=process_all, args=(db, f"w{n}", 3)) for n in range(3)),
        *(threading.Thread(target=cancel) for _ in range(3)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.finish(db, "slow", successful_results(held))
    cancellation.end_queued(db, cancellation.find_cancelling(db, "", 10))
    closing.close_batches(db, [batch_id])
    header = queries.get_batch(db, batch_id, None)
    assert len(answers) == 3
    assert header["counts"]["done"] + header["counts"]["cancelled"] == 60
    assert sum(answers) == header["counts"]["cancelled"]
