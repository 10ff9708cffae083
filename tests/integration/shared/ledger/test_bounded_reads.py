"""What runs often reads a number of documents and index entries that does not depend on how many images are kept.

The profiler of MongoDB says how many each operation has read.
"""

from collections.abc import Callable
from typing import Any

import pytest

from shared.inspections import jobs
from shared.inspections import results as inspection_results
from shared.ledger import (
    audit,
    batch_images,
    claims,
    closing,
    commits,
    open_counts,
    queries,
    results,
    store_rotation,
    sums,
    waits,
)
from shared.ledger.filters import Filters
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, new_batch, process_all, successful_results


def reads(db: Db, call: Callable[[], Any]) -> tuple[int, int, int]:
    """Return the number of commands of a call, and how many index entries and documents they have read."""
    db.command("profile", 2)
    try:
        call()
    finally:
        db.command("profile", 0)
    rows = list(db["system.profile"].find({"command.profile": {"$exists": False}, "ns": {"$not": {"$regex": "system.profile"}}}))
    db["system.profile"].drop()
    return len(rows), sum(row.get("keysExamined", 0) for row in rows), sum(row.get("docsExamined", 0) for row in rows)


def test_the_backlog_is_measured_from_indexes_alone(db: Db) -> None:
    for _ in range(4):
        commit_new_batch(db, 30)
    process_all(db)
    commit_new_batch(db, 5)
    commands, keys, documents = reads(db, lambda: audit.backlog(db))
    assert (commands, documents) == (3, 0)
    assert keys <= 5 + 1 + 4


def test_the_wait_of_the_oldest_image_is_read_from_two_documents(db: Db) -> None:
    for number in range(6):
        commit_new_batch(db, 30, store=f"store {number}")
    store_rotation.touch(db, [f"store {number}" for number in range(6)])
    commands, keys, documents = reads(db, lambda: waits.find_wait(db))
    assert (commands, documents) == (1, 2)
    assert keys <= 3


def test_images_are_counted_from_indexes_alone(db: Db) -> None:
    for _ in range(4):
        commit_new_batch(db, 30)
    results.finish(db, "w", [Result(*lease, None, ("corrupt", "x")) for lease in claims.claim(db, "w", 10, 60).leases])
    _, _, documents = reads(db, lambda: sums.count_interval(db))
    assert documents == 4  # the lines of the ledger


def test_the_images_of_open_batches_are_counted_from_indexes_alone(db: Db) -> None:
    batch_ids = [commit_new_batch(db, 30) for _ in range(3)]
    results.finish(db, "w", successful_results(claims.claim(db, "w", 40, 60)))
    commands, _, documents = reads(db, lambda: open_counts.count_open(db, batch_ids, 10_000))
    assert (commands, documents) == (2, 0)


def test_counting_the_queued_images_stops_at_the_limit(db: Db) -> None:
    commit_new_batch(db, 20)
    commands, keys, documents = reads(db, lambda: claims.count_queued(db, at_most=5))
    assert (commands, documents) == (1, 0)
    assert keys <= 6
    assert (claims.count_queued(db, at_most=5), claims.count_queued(db, at_most=30)) == (5, 20)


def test_looking_whether_a_large_batch_can_be_closed_reads_no_image(db: Db) -> None:
    batch_id = commit_new_batch(db, 300)
    claim = claims.claim(db, "w", 100, 60)
    results.finish(db, "w", successful_results(claim))
    commands, keys, documents = reads(db, lambda: closing.close_batches(db, [batch_id]))
    assert commands <= 3
    assert keys + documents <= 10


def test_many_batches_are_closed_in_as_many_commands_as_one(db: Db) -> None:
    ids = [commit_new_batch(db, 1) for _ in range(20)]
    results.finish(db, "w", successful_results(claims.claim(db, "w", 40, 60)))
    closed: list[list[str]] = []
    reads_of_one = reads(db, lambda: closed.append(closing.close_batches(db, ids[:1])))
    reads_of_many = reads(db, lambda: closed.append(closing.close_batches(db, ids[1:])))
    assert closed == [ids[:1], ids[1:]]
    # The profiler records each update of a bulk write.
    assert reads_of_many[0] - 19 == reads_of_one[0] - 1


def test_the_search_for_batches_to_close_does_not_count_their_images(db: Db) -> None:
    for _ in range(3):
        commit_new_batch(db, 200)
    _, keys, documents = reads(db, lambda: closing.find_closable(db))
    assert keys + documents <= 40


def test_the_totals_are_one_document(db: Db) -> None:
    commit_new_batch(db, 50)
    sums.refresh(db, 0)
    commands, _, documents = reads(db, lambda: sums.read_totals(db))
    assert (commands, documents) == (1, 1)


def test_a_repair_of_the_rotation_checks_a_limited_number_of_stores_and_the_next_one_continues(db: Db) -> None:
    stores = [f"store-{number:02}" for number in range(10)]
    commit_new_batch(db, store=[store for store in stores for _ in range(20)])
    db.turns.delete_many({})
    found: list[tuple[list[str], str]] = []
    commands, keys, documents = reads(db, lambda: found.append(store_rotation.repair(db, limit=4)))
    assert found == [(stores[:4], "store-03")]
    assert keys + documents <= 40
    assert commands <= 12
    assert store_rotation.repair(db, "store-03", limit=4) == (stores[4:8], "store-07")
    assert store_rotation.repair(db, "store-07", limit=4) == (stores[8:], "")


@pytest.mark.parametrize("pending", [0, 3])
def test_only_pending_inspections_are_counted(db: Db, pending: int) -> None:
    common = {"recipe": {}, "status": "done", "client": "c"}
    db.inspections.insert_many([{"_id": f"{number:032x}"} | common for number in range(50)])
    if pending:
        db.inspections.insert_many([{"_id": f"{number:032x}"} | common | {"status": "queued"} for number in range(100, 100 + pending)])
    counts: list[dict[str, int]] = []
    _, keys, documents = reads(db, lambda: counts.append(jobs.count_pending(db)))
    assert counts == [{"queued": pending, "processing": 0}]
    assert keys + documents <= 2 * pending + 2


def test_the_failures_by_code_are_those_of_the_newest_images(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_FAILURES_READ", 5)
    for code in ("corrupt", "truncated"):
        claim_batch = commit_new_batch(db, 4)
        db.images.update_many({"batch_id": claim_batch}, {"$set": {"status": "failed", "error": {"code": code}}})
    found: list[dict[str, int]] = []
    _, _, documents = reads(db, lambda: found.append(audit.failures_by_code(db)))
    assert found == [{"truncated": 4, "corrupt": 1}]
    assert documents == 5


def test_no_result_of_an_inspection_is_read_while_none_is_old_and_all_fit(db: Db) -> None:
    for number in range(50):
        inspection_results.store(db, f"{number:032x}", {"width": 1}, f"{number:032x}", 10)
    commands, keys, documents = reads(db, lambda: inspection_results.mark_expired(db, 1000, 500, 10))
    assert (commands, documents) == (3, 0)
    assert keys <= 55


@pytest.mark.parametrize(("limit", "documents"), [(0, 3), (1, 6), (4, 11), (100, 12)])
def test_the_first_images_of_batches_are_read_with_one_command_and_without_the_images_that_are_not_shown(
    db: Db, limit: int, documents: int
) -> None:
    totals = {commit_new_batch(db, count): count for count in (6, 4, 2)}
    newest_first = dict(sorted(totals.items(), reverse=True))
    commands, keys, read = reads(db, lambda: list(batch_images.read_first(db, newest_first, None, limit, 60_000)))
    assert (commands, read) == (1, documents)
    assert keys <= documents + len(totals)


@pytest.mark.parametrize("owned", [2, 20])
def test_a_list_of_several_stores_is_read_from_their_index_entries_alone(db: Db, owned: int) -> None:
    batches = [new_batch(1, f"store {number % 40:02}", id=f"{number:032x}") for number in range(200)]
    db.batches.insert_many([commits.batch_document(batch) | {"counts": {}} for batch in batches])
    stores = frozenset(f"store {number:02}" for number in range(owned))
    found: list[queries.Page] = []
    for read in (
        lambda: found.append(queries.page_of_batches(db, Filters(), stores, 2, 3)),
        lambda: found.append(queries.batches_after(db, Filters(), stores, batches[-1].id, 3)),
    ):
        commands, keys, documents = reads(db, read)
        assert (commands, documents) == (2, 3)  # the documents of the page
        assert keys <= owned + 7 + 3 + 3
    assert [len(page.batches) for page in found] == [3, 3]


def test_of_parts_only_the_images_in_rare_states_are_read(db: Db) -> None:
    batch_ids = [commit_new_batch(db, store=["a", "b", "c"] * 20) for _ in range(3)]
    process_all(db)
    db.images.update_many({"batch_id": batch_ids[0], "index": {"$lt": 4}}, {"$set": {"status": "failed"}})
    parts = {batch_id: frozenset(stores) for batch_id, stores in zip(batch_ids, ("ab", "a", "ab"), strict=True)}
    found: list[dict[str, dict[str, int]]] = []
    commands, keys, documents = reads(db, lambda: found.append(open_counts.count_parts(db, parts, 10_000)))
    assert found == [{batch_ids[0]: {"failed": 3, "done": 37}, batch_ids[1]: {"done": 20}, batch_ids[2]: {"done": 40}}]
    assert (commands, documents) == (2, 4)
    assert keys <= 100 + 4 + 10


def test_the_images_of_a_part_are_read_without_those_of_other_batches(db: Db) -> None:
    batch_ids = [commit_new_batch(db, store=["a", "b"] * 5) for _ in range(6)]
    stores = frozenset({"a"})
    for read in (
        lambda: list(batch_images.read_first(db, {batch_ids[3]: 5}, stores, 10, 60_000)),
        lambda: list(batch_images.read_range(db, batch_ids[3], stores, 0, 10, 60_000)),
    ):
        commands, keys, documents = reads(db, read)
        assert (commands, documents) == (1, 10)
        assert keys <= 11
