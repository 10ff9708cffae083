"""Where the sum of the ledger is wrong, the batches concerned are found, kept and counted until they are complete again."""

from datetime import timedelta

import pytest

from shared.ledger import audit, deletion, imbalances, sums
from shared.ledger.imbalances import BALANCED, UnbalancedBatches, find_unbalanced
from shared.storage.mongo import Db, Document, run_transaction
from tests.support.ledger import batch_id_at, commit_new_batch, process_all, utc_now, validate_documents

OLD = utc_now() - timedelta(minutes=2)
NEVER = float("inf")


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "SEGMENT_BATCHES", 3)


def commit_batches(db: Db, old: int, images: int = 4) -> list[str]:
    """Commit old batches and a new one, and return their ids. The old ones fill segments, and the new one is in the head."""
    return [commit_new_batch(db, images, id=batch_id_at(OLD, number)) for number in range(old)] + [commit_new_batch(db, images)]


def rotate(db: Db) -> list[sums.Imbalance]:
    """Refresh the sums until each segment was recounted, and return what has changed."""
    return [found for _ in range(db.ledger_segments.count_documents({}) + 1) for found in sums.refresh(db, NEVER).imbalances]


def take(db: Db, query: Document) -> list[Document]:
    """Remove image documents by hand, and return them."""
    found = list(db.images.find(query))
    db.images.delete_many(query)
    return found


def totals(db: Db) -> sums.Totals:
    found = sums.read_totals(db)
    assert found is not None
    return found


@pytest.mark.parametrize("is_finished", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("position", [1, 4, -1], ids=["first segment", "second segment", "head"])
def test_a_document_removed_by_hand_is_found_with_its_batch_until_it_is_put_back(db: Db, position: int, *, is_finished: bool) -> None:
    ids = commit_batches(db, 6)
    if is_finished:
        process_all(db)
    assert rotate(db) == []
    assert (totals(db).missing, totals(db).unbalanced_batches, totals(db).unbalanced) == (0, 0, ())
    taken = take(db, {"batch_id": ids[position], "index": 2})
    (found,) = rotate(db)
    assert (found.missing, found.batches) == (1, UnbalancedBatches(1, 1, ((ids[position], 1),)))
    assert (totals(db).missing, totals(db).unbalanced_batches, totals(db).unbalanced) == (1, 1, (ids[position],))
    validate_documents(db)
    assert rotate(db) == []
    db.images.insert_many(taken)
    (found,) = rotate(db)
    assert (found.missing, found.batches) == (0, BALANCED)
    assert (totals(db).missing, totals(db).unbalanced_batches) == (0, 0)
    assert totals(db).counts == audit.balance(db)
    validate_documents(db)


def test_all_images_of_batches_can_be_missing(db: Db) -> None:
    ids = commit_batches(db, 6)
    process_all(db)
    rotate(db)
    taken = take(db, {"batch_id": {"$in": [ids[0], ids[2], ids[6]]}})
    found = {imbalance.newest: imbalance.batches.named for imbalance in rotate(db)}
    assert found == {ids[2]: ((ids[0], 4), (ids[2], 4)), None: ((ids[6], 4),)}
    assert (totals(db).missing, totals(db).unbalanced_batches, totals(db).unbalanced) == (12, 3, (ids[6], ids[2], ids[0]))
    db.images.insert_many(taken)
    assert {imbalance.missing for imbalance in rotate(db)} == {0}
    assert (totals(db).missing, totals(db).unbalanced_batches) == (0, 0)


def test_another_missing_document_is_reported_although_the_sum_is_the_same(db: Db) -> None:
    ids = commit_batches(db, 6)
    rotate(db)
    taken = take(db, {"batch_id": ids[0], "index": 0})
    rotate(db)
    take(db, {"batch_id": ids[1], "index": 0})
    db.images.insert_many(taken)
    (found,) = rotate(db)
    assert (found.missing, found.batches.named) == (1, ((ids[1], 1),))


def test_documents_of_batches_that_are_being_deleted_or_were_deleted_are_not_missing(db: Db) -> None:
    ids = commit_batches(db, 6)
    process_all(db)
    deletion.begin_delete(db, ids[1], None)
    take(db, {"batch_id": ids[2], "index": 0})
    expected = UnbalancedBatches(1, 1, ((ids[2], 1),))
    assert find_unbalanced(db, "", ids[2]) == expected
    deletion.finish_delete(db, ids[1])
    assert find_unbalanced(db, "", ids[2]) == expected


def test_a_document_too_many_is_found(db: Db) -> None:
    ids = commit_batches(db, 6)
    process_all(db)
    rotate(db)
    (original,) = db.images.find({"batch_id": ids[3], "index": 0})
    added = {**original, "_id": original["_id"][:-4] + "9999", "index": 9999}
    db.images.insert_one(added)
    (found,) = rotate(db)
    assert (found.missing, found.batches) == (-1, UnbalancedBatches(1, 0, ((ids[3], -1),)))
    assert (totals(db).missing, totals(db).unbalanced_batches) == (0, 1)


def test_at_most_twenty_batches_are_named_and_all_are_counted(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = commit_batches(db, 29, images=1)
    take(db, {})
    monkeypatch.setattr(sums, "SEGMENT_BATCHES", 25)
    sums.refresh(db, NEVER)
    segment, head = find_unbalanced(db, "", ids[24]), find_unbalanced(db, ids[24], None)
    assert (segment.count, segment.missing, [batch_id for batch_id, _ in segment.named]) == (25, 25, ids[:20])
    assert (head.count, head.missing, [batch_id for batch_id, _ in head.named]) == (5, 5, ids[25:])
    assert (totals(db).missing, totals(db).unbalanced_batches, len(totals(db).unbalanced)) == (30, 30, 20)


def test_a_long_interval_is_checked_in_part(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imbalances, "_MAX_BATCHES", 2)
    ids = commit_batches(db, 4)
    take(db, {"batch_id": {"$in": ids[1:3]}, "index": 0})
    assert find_unbalanced(db, "", None) == UnbalancedBatches(1, 1, ((ids[1], 1),))


def test_segments_that_are_marked_due_show_a_change_of_state_at_the_next_refresh(db: Db) -> None:
    ids = commit_batches(db, 12)
    process_all(db)
    rotate(db)
    assert totals(db).counts["pending"] == 0
    db.images.update_many({"batch_id": {"$in": ids[:8]}}, {"$set": {"status": "queued"}})
    sums.mark_due(db, [*ids[:8], ids[12]])
    assert db.ledger_segments.count_documents({"due": True}) == 3
    sums.refresh(db, NEVER)
    assert totals(db).counts["pending"] == 32
    process_all(db)
    sums.refresh(db, NEVER)  # segments with pending images stay due
    assert totals(db).counts == audit.balance(db)
    sums.mark_due(db, [])


def test_a_recount_that_began_before_a_segment_was_marked_is_discarded(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = commit_batches(db, 3)
    process_all(db)
    rotate(db)
    count = sums.count_interval

    def count_and_change(db: Db, after: str = "", newest: str | None = None) -> dict[str, int]:
        counts = count(db, after, newest)
        db.images.update_many({"batch_id": ids[0]}, {"$set": {"status": "queued"}})
        sums.mark_due(db, [ids[0]])
        return counts

    monkeypatch.setattr(sums, "count_interval", count_and_change)
    sums.refresh(db, NEVER)
    monkeypatch.setattr(sums, "count_interval", count)
    sums.refresh(db, NEVER)
    assert totals(db).counts["pending"] == 4


def test_a_segment_that_is_off_is_recounted_before_its_turn(db: Db) -> None:
    ids = commit_batches(db, 30)
    process_all(db)
    rotate(db)
    taken = take(db, {"batch_id": ids[0], "index": 0})
    rotate(db)
    db.ledger_segments.update_one({"after": ""}, {"$set": {"counted_at": utc_now() + timedelta(hours=1)}})
    db.images.insert_many(taken)
    assert [found.missing for found in sums.refresh(db, NEVER).imbalances] == [0]


def test_an_interval_that_is_repaired_while_it_is_counted_is_counted_again(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = commit_batches(db, 3)
    process_all(db)
    rotate(db)
    taken = take(db, {"batch_id": ids[0], "index": 0})
    count = sums.count_interval

    def count_and_repair(db: Db, after: str = "", newest: str | None = None) -> dict[str, int]:
        counts = count(db, after, newest)
        if taken and not after:
            db.images.insert_many(taken)
            taken.clear()
        return counts

    monkeypatch.setattr(sums, "count_interval", count_and_repair)
    (found,) = sums.refresh(db, NEVER).imbalances
    assert (found.missing, found.batches) == (1, BALANCED)
    assert [found.missing for found in sums.refresh(db, NEVER).imbalances] == [0]


def test_marks_are_also_made_in_transactions(db: Db) -> None:
    ids = commit_batches(db, 3)
    process_all(db)
    rotate(db)
    run_transaction(db, lambda session: sums.mark_changed(db, session, ids[1]), 60)
    assert db.ledger_segments.count_documents({"due": True, "changes": 1}) == 1
