"""Every accepted image is accounted for, a batch is deleted as a whole, and a document removed by hand is noticed."""

import threading
import time
from datetime import timedelta

import pytest

from scripts.local.temporary_servers import Mongod
from shared.errors import NotFound, StoreAway
from shared.ledger import audit, claims, dead_letters, deletion, queries, results
from shared.ledger.filters import Filters
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.ledger import (
    claimed_fences,
    commit_new_batch,
    process_all,
    successful_results,
    utc_now,
    validate_documents,
)

PARTS = ("done", "failed", "cancelled", "pending", "deleted")


def missing(balance: dict[str, int]) -> int:
    return balance["received"] - sum(balance[part] for part in PARTS)


def test_every_image_is_in_exactly_one_part_of_the_balance(db: Db) -> None:
    assert audit.balance(db) == dict.fromkeys(("received", *PARTS), 0)
    commit_new_batch(db, 5)
    claim = claims.claim(db, "w", 3, 60)
    (first, fence), *_ = claimed_fences(claim)
    results.finish(db, "w", [Result(first, fence, None, ("corrupt", "x")), *successful_results(claim)[1:2]])
    assert audit.balance(db) == {"received": 5, "done": 1, "failed": 1, "cancelled": 0, "pending": 3, "deleted": 0}
    assert dead_letters.failures_by_code(db) == {"corrupt": 1}


@pytest.mark.parametrize("status", ["queued", "processing", "done", "failed"])
def test_the_balance_shows_a_document_removed_by_hand(db: Db, status: str) -> None:
    batch_id = commit_new_batch(db, 4)
    db.images.update_one({"_id": f"{batch_id}0001"}, {"$set": {"status": status}})
    assert missing(audit.balance(db)) == 0
    db.images.delete_one({"_id": f"{batch_id}0001"})
    assert missing(audit.balance(db)) == 1
    deletion.begin_delete(db, batch_id, None)  # which does not hide the loss
    deletion.finish_delete(db, batch_id)
    assert missing(audit.balance(db)) == 1


def test_the_balance_holds_at_every_moment_under_load(db: Db) -> None:
    """A metric that is wrong while images are processed would raise false alarms."""
    for _ in range(10):
        commit_new_batch(db, 20)
    churn_ended = threading.Event()

    def churn() -> None:
        try:
            while (claim := claims.claim(db, "w", 4, 60)).images:
                results.finish(db, "w", successful_results(claim))
                commit_new_batch(db, 1) if db.images.estimated_document_count() < 260 else None
        finally:
            churn_ended.set()

    def delete() -> None:
        for row in list(db.batches.find({}, {"_id": 1}).limit(5)):
            deletion.begin_delete(db, row["_id"], None)

    threads = [threading.Thread(target=churn), threading.Thread(target=delete)]
    for thread in threads:
        thread.start()
    unbalanced = []
    checks = 0
    while not churn_ended.is_set():
        checks += 1
        balance = audit.balance(db)
        if missing(balance):
            unbalanced.append(balance)
    for thread in threads:
        thread.join()
    assert unbalanced == []
    assert checks > 1


def test_the_backlog_counts_what_waits(db: Db) -> None:
    assert audit.backlog(db) == audit.Backlog(0, 0, 0.0)
    old = commit_new_batch(db, 2)
    db.batches.update_one({"_id": old}, {"$set": {"created_at": utc_now() - timedelta(minutes=1)}})
    commit_new_batch(db, 1)
    waiting = audit.backlog(db)
    assert (waiting.images, waiting.bytes) == (3, 3000)
    assert 59 < waiting.oldest_age_s < 600
    process_all(db)
    assert audit.backlog(db) == audit.Backlog(0, 0, 0.0)


@pytest.mark.parametrize(("accepted_h", "opened_h", "expected_h"), [(50, None, 50), (50, 2, 2), (50, 60, 60)])
def test_a_batch_that_was_opened_again_is_as_old_as_that(db: Db, accepted_h: int, opened_h: int | None, expected_h: int) -> None:
    batch_id = commit_new_batch(db, 1)
    commit_new_batch(db, 1)
    times = {"created_at": utc_now() - timedelta(hours=accepted_h)}
    if opened_h is not None:
        times["opened_at"] = utc_now() - timedelta(hours=opened_h)
    db.batches.update_one({"_id": batch_id}, {"$set": times})
    assert round(audit.backlog(db).oldest_age_s / 3600) == expected_h


def test_a_deleted_batch_is_hidden_at_once_and_removed_later(db: Db) -> None:
    batch_id, other = commit_new_batch(db, 3), commit_new_batch(db, 2)
    process_all(db)
    deletion.begin_delete(db, batch_id, None)
    assert [row["_id"] for row in queries.page_of_batches(db, Filters(), None, 1, 10).batches] == [other]
    for operation in (
        lambda: queries.get_batch(db, batch_id, None),
        lambda: queries.get_image(db, f"{batch_id}0000", None),
        lambda: deletion.begin_delete(db, batch_id, None),
    ):
        with pytest.raises(NotFound):
            operation()
    assert all(image["work"]["fence"] == 2 for image in db.images.find({"batch_id": batch_id}))
    validate_documents(db)
    assert deletion.claim_deletable(db, 60) is None
    assert deletion.claim_deletable(db, -1) == batch_id
    deletion.finish_delete(db, batch_id)
    deletion.finish_delete(db, batch_id)
    assert db.images.count_documents({"batch_id": batch_id}) == 0
    assert audit.balance(db) == {"received": 5, "done": 2, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 3}
    ledger_document = db.ledger.find_one({"_id": batch_id})
    assert ledger_document is not None
    assert ledger_document["state"] == "deleted"
    validate_documents(db)


def test_deleting_while_workers_finish_leaves_no_image_behind(db: Db) -> None:
    ids = [commit_new_batch(db, 10) for _ in range(6)]
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait()
        process_all(db, threading.current_thread().name, 4)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for batch_id in ids[::2]:
        deletion.begin_delete(db, batch_id, None)
    for thread in threads:
        thread.join()
    process_all(db)
    assert db.images.count_documents({"batch_id": {"$in": ids[::2]}, "status": {"$ne": "deleting"}}) == 0
    assert audit.balance(db) == {"received": 60, "done": 30, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 30}


def test_of_concurrent_deletions_all_but_one_find_nothing(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    outcomes: list[str] = []

    def delete() -> None:
        try:
            deletion.begin_delete(db, batch_id, None)
            outcomes.append("deleted")
        except NotFound:
            outcomes.append("not found")

    threads = [threading.Thread(target=delete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["deleted", *["not found"] * 3]
    assert audit.balance(db)["deleted"] == 3


def test_a_deletion_does_not_wait_forever_for_a_frozen_server(db: Db, mongod: Mongod) -> None:
    batch_id = commit_new_batch(db, 1)
    mongod.pause()
    try:
        started_at = time.monotonic()
        with pytest.raises(StoreAway):
            deletion.begin_delete(db, batch_id, None, deadline_s=1)
        assert time.monotonic() - started_at < 20
    finally:
        mongod.resume()
    assert len(queries.page_of_batches(db, Filters(), None, 1, 10).batches) == 1
    _delete_when_the_server_allows_it(db, batch_id)
    assert audit.balance(db)["deleted"] == 1


def _delete_when_the_server_allows_it(db: Db, batch_id: str) -> None:
    """Retry, as a client would; a transaction that the frozen server had received may lock the batch until it expires."""
    until = time.monotonic() + 60
    while True:
        try:
            return deletion.begin_delete(db, batch_id, None, deadline_s=2)
        except NotFound:  # an earlier attempt took place, and its response came too late
            return None
        except StoreAway:
            assert time.monotonic() < until
            db.client.admin.command("killAllSessions", [])  # shortens the wait; the expiry alone would also end it
