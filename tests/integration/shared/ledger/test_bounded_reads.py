"""What runs often reads a number of documents and index entries that does not depend on how many images are kept.

The profiler of MongoDB says how many each operation has read.
"""

import re
from collections.abc import Callable
from datetime import timedelta
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
    dead_letters,
    open_counts,
    queries,
    results,
    sums,
    turns,
    waits,
)
from shared.ledger.filters import Filters
from shared.ledger.results import Result
from shared.ledger.turns import Turn
from shared.priorities import PRIORITIES, Priority
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch, new_batch, process_all, successful_results, utc_now


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


@pytest.mark.parametrize(("accounts", "listed"), [(1, 1), (30, 16)])
def test_the_wait_of_the_oldest_image_is_read_from_it_and_the_turns_of_the_accounts(db: Db, accounts: int, listed: int) -> None:
    for number in range(30):
        commit_new_batch(db, 10, store=f"store {number}", account=f"user:{number % accounts}")
    commands, keys, documents = reads(db, lambda: waits.find_wait(db))
    assert (commands, documents) == (2, 2 + listed)
    assert keys <= 3 + listed + 1


def test_if_another_image_may_have_waited_longer_a_limited_number_of_images_of_its_account_is_read(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "_IMAGES", 5)
    for store in range(12):
        for priority in PRIORITIES:
            commit_new_batch(db, 10, store=f"store {store}", priority=priority)
    db.images.update_many({}, {"$set": {"work.queued_at": utc_now()}})
    commands, keys, documents = reads(db, lambda: waits.find_wait(db))
    assert commands == 2 + 1 + 4
    assert documents <= 3 + 4 + 4 * 5
    assert keys <= 4 + 4 + len(PRIORITIES) + 4 * 5


@pytest.mark.parametrize(("account", "priority"), [(None, "normal"), ("user:a", "high")])
def test_a_claim_reads_the_index_entries_of_its_images_alone(db: Db, account: str | None, priority: Priority) -> None:
    for other in (None, "user:a", "user:b"):
        for of_other in PRIORITIES:
            commit_new_batch(db, 30, ["north", "south", "west"] * 10, account=other, priority=of_other)
    explained = turns.find_images(db, Turn(account, priority, "south"), claims.LEASES.claimable(), {"file_size": 1}).limit(4).explain()
    assert (explained["executionStats"]["totalKeysExamined"], explained["executionStats"]["totalDocsExamined"]) == (4, 4)
    plan = str(explained["queryPlanner"]["winningPlan"])
    assert turns.CLAIMABLE in plan
    assert not re.search("SORT|COLLSCAN|OR", plan.replace(turns.CLAIMABLE, ""))
    images = list(turns.find_images(db, Turn(account, priority, "south"), {"status": "queued"}, {}))
    assert [turns.turn_of(image) for image in images] == [Turn(account, priority, "south")] * 10
    assert [image["_id"] for image in images] == sorted(image["_id"] for image in images)


def test_the_cost_of_a_claim_does_not_grow_with_the_number_of_accounts_and_stores(db: Db) -> None:
    counts = []
    for number in (10, 40):
        for account in range(number):
            commit_new_batch(db, store=[f"store {store}" for store in range(number)] * 8, account=f"user:{account}")
        counts.append(reads(db, lambda: claims.claim(db, "w", 8, 60)))
    (commands, keys, documents), (commands_of_many, keys_of_many, documents_of_many) = counts
    assert commands == 1 + 4 + 2 + 2  # the turns, two stores of each of two accounts, moving both, claiming and reading
    assert documents <= 8 * (1 + 8) + 6 * 8  # eight accounts with eight stores each, and the images
    assert commands_of_many == commands
    assert keys_of_many - keys <= 8  # where a scan begins in an index can cost an entry
    assert documents_of_many - documents <= 8


def test_a_claim_without_queued_images_is_two_reads(db: Db) -> None:
    commit_new_batch(db, 20)
    process_all(db)
    commands, keys, documents = reads(db, lambda: claims.claim(db, "w", 8, 60))
    assert (commands, documents) == (2, 0)
    assert keys <= 2


def test_the_cost_of_a_claim_among_images_that_wait_for_a_retry_does_not_grow_with_their_number(db: Db) -> None:
    counts: list[tuple[int, int, int]] = []
    for _ in range(2):
        for store in range(200):
            commit_new_batch(db, 1, f"{len(counts)} {store}", priority="high")
        db.images.update_many({}, {"$set": {"work.not_before": utc_now() + timedelta(hours=1)}})
        counts.append(reads(db, lambda: claims.claim(db, "w", 16, 60)))
    assert counts[1][0] <= counts[0][0]
    assert counts[1][1] <= 2 * counts[0][1]
    assert counts[1][0] <= 12 * (1 + 16 * 2 + 2) + 16 + 2


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


def test_the_totals_are_one_document_and_the_segments_that_balance_are_not_read(db: Db) -> None:
    commit_new_batch(db, 50)
    sums.refresh(db, 0)
    commands, _, documents = reads(db, lambda: sums.read_totals(db))
    assert (commands, documents) == (2, 1)


def test_a_repair_of_the_rotation_checks_a_limited_number_of_stores_and_the_next_one_continues(db: Db) -> None:
    stores = [f"store-{number:02}" for number in range(10)]
    commit_new_batch(db, store=[store for store in stores for _ in range(20)])
    db.store_turns.delete_many({})
    expected = [Turn(None, "normal", store) for store in stores]
    found: list[tuple[list[Turn], Turn | None]] = []
    commands, keys, documents = reads(db, lambda: found.append(turns.repair(db, limit=4)))
    assert found == [(expected[:4], expected[3])]
    assert keys + documents <= 20
    assert commands <= 4 + 2 + 4 + 1  # the stores, which turns they have, and the new turns of the stores and of the account
    assert turns.repair(db, expected[3], limit=4) == (expected[4:8], expected[7])
    assert turns.repair(db, expected[7], limit=4) == (expected[8:], None)


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
    monkeypatch.setattr(dead_letters, "FAILURES_READ", 5)
    for code in ("corrupt", "truncated"):
        claim_batch = commit_new_batch(db, 4)
        db.images.update_many({"batch_id": claim_batch}, {"$set": {"status": "failed", "error": {"code": code}}})
    found: list[dict[str, int]] = []
    _, _, documents = reads(db, lambda: found.append(dead_letters.failures_by_code(db)))
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
