"""The sums of the ledger: they agree with an exact count, balance at every moment, and show a document removed by hand."""

import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from shared.errors import NotFound
from shared.ledger import audit, claims, deletion, reprocessing, results, sums
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.ledger import (
    batch_id_at,
    commit_new_batch,
    process_all,
    successful_results,
    utc_now,
    validate_documents,
)

NEVER = float("inf")
OLD = utc_now() - timedelta(minutes=2)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "SEGMENT_BATCHES", 3)
    monkeypatch.setattr(sums, "SEGMENT_IMAGES", 50)


def commit_old_batches(db: Db, count: int, images: int = 4, first: int = 0) -> list[str]:
    """Commit batches whose ids are at least two minutes old, so that they can be added to segments."""
    return [commit_new_batch(db, images, id=batch_id_at(OLD, first + number)) for number in range(count)]


def refresh(db: Db, until: float = NEVER) -> sums.Refreshed:
    return sums.refresh(db, until)


def totals(db: Db) -> dict[str, int]:
    found = sums.read_totals(db)
    assert found is not None
    return found.counts


def rotate_completely(db: Db) -> list[sums.Imbalance]:
    """Refresh the sums until each segment was recounted in rotation, and return all imbalances that were found."""
    found = refresh(db).imbalances
    for _ in range(db.ledger_segments.count_documents({})):
        found += refresh(db).imbalances
    return found


def delete_if_present(db: Db, batch_id: str) -> None:
    with suppress(NotFound):
        deletion.begin_delete(db, batch_id, None)


def test_there_are_no_totals_until_the_first_refresh(db: Db) -> None:
    commit_new_batch(db, 2)
    assert sums.read_totals(db) is None
    refresh(db)
    assert totals(db) == audit.balance(db)


def test_the_totals_agree_with_an_exact_count(db: Db) -> None:
    commit_old_batches(db, 7)
    commit_new_batch(db, 5)
    claim = claims.claim(db, "w", 9, 60)
    results.finish(db, "w", [Result(*claim.leases[0], None, ("corrupt", "x")), *successful_results(claim)[1:]])
    assert refresh(db).complete
    assert db.ledger_segments.count_documents({}) == 2
    assert totals(db) == audit.balance(db)
    assert totals(db) == {"received": 33, "done": 8, "failed": 1, "cancelled": 0, "pending": 24, "deleted": 0}
    validate_documents(db)


def test_segments_are_contiguous_and_end_at_the_first_limit_that_is_reached(db: Db) -> None:
    commit_old_batches(db, 4)
    commit_old_batches(db, 3, images=30, first=4)
    refresh(db)
    segments = list(db.ledger_segments.find().sort("_id", 1))
    assert [segment["counts"]["received"] for segment in segments] == [12, 64]
    assert [segment["after"] for segment in segments] == ["", segments[0]["_id"]]


def test_finished_and_deleted_images_in_old_segments_are_counted_at_the_next_refresh(db: Db) -> None:
    first, *_ = commit_old_batches(db, 12)
    refresh(db)
    process_all(db)
    refresh(db)
    assert totals(db) == audit.balance(db)
    for _ in range(4):
        refresh(db)  # now no segment is due, and the rotation has passed the first segment
    deletion.begin_delete(db, first, None)
    refresh(db)
    assert totals(db) == audit.balance(db)
    assert totals(db)["deleted"] == 4


@pytest.mark.parametrize("in_head", [False, True])
def test_a_document_removed_by_hand_shows_after_one_rotation_and_is_reported_once(db: Db, *, in_head: bool) -> None:
    ids = commit_old_batches(db, 30)
    head = commit_new_batch(db, 1)
    process_all(db)
    rotate_completely(db)
    assert sums.count_missing(totals(db)) == 0
    db.images.delete_one({"batch_id": head if in_head else ids[14]})
    (found,) = rotate_completely(db)
    assert sums.count_missing(totals(db)) == 1
    assert found.missing == 1
    if in_head:
        assert (found.after, found.newest) == (ids[-1], None)
    else:
        assert found.after < ids[14]
        assert found.newest is not None
        assert ids[14] <= found.newest
    assert rotate_completely(db) == []
    assert sums.count_missing(totals(db)) == 1


def test_a_document_that_is_missing_at_the_first_count_is_reported_once(db: Db) -> None:
    ids = commit_old_batches(db, 9)
    db.images.delete_one({"batch_id": ids[1]})
    db.images.delete_many({"batch_id": ids[5]})
    found = [(imbalance.after, imbalance.newest, imbalance.missing) for imbalance in refresh(db).imbalances]
    assert found == [("", ids[2], 1), (ids[2], ids[5], 4)]
    assert rotate_completely(db) == []
    assert sums.count_missing(totals(db)) == 5


@pytest.mark.parametrize("counted_in_head", [False, True])
def test_a_document_missing_in_the_head_is_not_reported_again_when_its_batch_moves_to_a_segment(
    db: Db, monkeypatch: pytest.MonkeyPatch, *, counted_in_head: bool
) -> None:
    monkeypatch.setattr(sums, "SEGMENT_BATCHES", 8)
    ids = commit_old_batches(db, 5)
    assert refresh(db).imbalances == []
    db.images.delete_one({"batch_id": ids[1]})
    found = refresh(db).imbalances if counted_in_head else []
    ids += commit_old_batches(db, 5, first=5)
    found += refresh(db).imbalances
    interval = ("", None) if counted_in_head else ("", ids[7])
    assert [(imbalance.after, imbalance.newest, imbalance.missing) for imbalance in found] == [(*interval, 1)]
    assert db.ledger_segments.count_documents({}) == 1
    db.images.delete_one({"batch_id": ids[9]})
    (later,) = refresh(db).imbalances
    assert (later.after, later.newest, later.missing) == (ids[7], None, 1)
    assert rotate_completely(db) == []


def test_nothing_is_reported_missing_while_batches_are_committed_finished_and_deleted(db: Db) -> None:
    def work() -> None:
        for number in range(20):
            batch_id = commit_new_batch(db, 4)
            process_all(db)
            if number % 2:
                deletion.begin_delete(db, batch_id, None)

    thread = threading.Thread(target=work)
    thread.start()
    found: list[sums.Imbalance] = []
    while thread.is_alive():
        found += refresh(db).imbalances
    thread.join()
    assert found == []


def test_documents_that_are_restored_in_the_head_are_reported(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    removed = list(db.images.find({"batch_id": batch_id}))
    db.images.delete_many({})
    assert [imbalance.missing for imbalance in refresh(db).imbalances] == [2]
    db.images.insert_many(removed)
    assert [imbalance.missing for imbalance in refresh(db).imbalances] == [0]
    assert refresh(db).imbalances == []


def test_a_batch_committed_late_into_an_old_segment_is_counted_in_rotation(db: Db) -> None:
    commit_old_batches(db, 30, first=100)
    refresh(db)
    commit_old_batches(db, 1, first=50)
    rotate_completely(db)
    assert totals(db) == audit.balance(db)


def test_without_time_each_refresh_advances_a_little_and_the_totals_wait_until_all_is_counted(db: Db) -> None:
    commit_old_batches(db, 9)
    assert not refresh(db, until=time.monotonic() - 1).complete
    assert sums.read_totals(db) is None
    refreshes = 1
    while not refresh(db, until=time.monotonic() - 1).complete:
        refreshes += 1
    assert refreshes <= 4
    assert totals(db) == audit.balance(db)


def test_every_recount_is_exact_although_batches_are_deleted_at_the_same_time(db: Db) -> None:
    ids = commit_old_batches(db, 30)
    refresh(db)
    unbalanced = []

    def delete() -> None:
        for batch_id in ids[::2]:
            deletion.begin_delete(db, batch_id, None)

    thread = threading.Thread(target=delete)
    thread.start()
    while thread.is_alive():
        refresh(db)
        unbalanced.append(sums.count_missing(totals(db)))
    thread.join()
    refresh(db)
    assert set(unbalanced) <= {0}
    assert totals(db) == audit.balance(db)


def test_a_deletion_during_a_recount_is_counted_at_the_next_refresh(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = commit_old_batches(db, 3)
    process_all(db)
    refresh(db)
    count = sums.count_interval

    def count_and_delete(db: Db, after: str = "", newest: str | None = None) -> dict[str, int]:
        counts = count(db, after, newest)
        delete_if_present(db, first)
        return counts

    monkeypatch.setattr(sums, "count_interval", count_and_delete)
    refresh(db)
    monkeypatch.setattr(sums, "count_interval", count)
    assert db.ledger_segments.count_documents({"due": True}) == 1
    refresh(db)
    assert totals(db)["deleted"] == 4


def test_a_reprocessing_during_a_recount_is_counted_at_the_next_refresh(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = commit_old_batches(db, 3)
    process_all(db)
    refresh(db)
    count_interval = sums.count_interval

    def count_then_reprocess(*arguments: Any) -> dict[str, int]:
        counts = count_interval(*arguments)
        reprocessing.reprocess(db, batches[0], {}, reprocessing.Options(), None)
        return counts

    with monkeypatch.context() as patch:
        patch.setattr(sums, "count_interval", count_then_reprocess)
        refresh(db)
    monkeypatch.setattr(sums, "_ROTATION", 0)  # only what is due
    refresh(db)
    assert (totals(db)["done"], totals(db)["pending"]) == (8, 4)


def test_a_deletion_while_a_segment_is_added_is_counted(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, last = commit_old_batches(db, 12)
    count = sums.count_interval

    def count_and_delete(db: Db, after: str = "", newest: str | None = None) -> dict[str, int]:
        counts = count(db, after, newest)
        if newest == last:
            delete_if_present(db, last)
        return counts

    monkeypatch.setattr(sums, "count_interval", count_and_delete)
    refresh(db)
    assert totals(db) == audit.balance(db)
    assert totals(db)["deleted"] == 4


def test_concurrent_refreshes_count_everything_once(db: Db) -> None:
    """Two sweeps can run at the same time for a moment, when the lease of one has ended without its notice."""
    commit_old_batches(db, 24)
    failures: list[Exception] = []

    def run() -> None:
        try:
            refresh(db)
        except Exception as error:  # noqa: BLE001 -- the test shows it
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    refresh(db)
    assert totals(db) == audit.balance(db)


def test_the_ages_are_those_of_the_totals_and_of_the_oldest_count(db: Db) -> None:
    commit_old_batches(db, 3)
    refresh(db)
    hour_ago = utc_now() - timedelta(hours=1)
    db.ledger_totals.update_one({}, {"$set": {"oldest_counted_at": hour_ago}})
    found = sums.read_totals(db)
    assert found is not None
    assert found.age_s < 600
    assert 3500 < found.oldest_recount_age_s < 5000
    refresh(db)
    found = sums.read_totals(db)
    assert found is not None
    assert found.oldest_recount_age_s < 600
