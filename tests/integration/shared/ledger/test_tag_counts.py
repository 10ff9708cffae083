"""Counts of tagged images, per store: changes in transactions, sums, and deletions of batches."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from pymongo.client_session import ClientSession

from shared.errors import StoreAway
from shared.ids import image_id
from shared.ledger import deletion, tag_counts
from shared.storage.mongo import Db, run_transaction
from tests.support.ledger import commit_new_batch, utc_now, validate_documents


def change(db: Db, deltas: Mapping[tuple[str, str], int]) -> None:
    def write(session: ClientSession) -> None:
        tag_counts.change(db, session, deltas)

    run_transaction(db, write, 60)


def stored(db: Db) -> dict[tuple[str, str], int]:
    return {(row["tag"], row["store"]): row["n"] for row in db.tag_counts.find()}


def test_changes_add_up_and_zero_writes_nothing(db: Db) -> None:
    change(db, {("a", "north"): 2, ("a", "south"): 1, ("b", "north"): 0})
    change(db, {("a", "north"): -1})
    assert stored(db) == {("a", "north"): 1, ("a", "south"): 1}
    change(db, {})
    assert validate_documents(db) == 2


def test_counts_are_sums_over_the_ids_of_a_tag_in_the_stores(db: Db) -> None:
    change(db, {("a", "north"): 2, ("a", "south"): 1, ("b", "north"): 4, ("c", "west"): 8})
    ids = {"a": ("a", "b"), "c": ("c",), "none": ("d",)}
    assert tag_counts.count(db, ids, None) == {"a": 7, "c": 8, "none": 0}
    assert tag_counts.count(db, ids, frozenset({"south", "east"})) == {"a": 1, "c": 0, "none": 0}
    assert tag_counts.count(db, ids, frozenset()) == {"a": 0, "c": 0, "none": 0}
    assert tag_counts.count(db, {}, None) == {}


def test_a_tag_is_used_outside_stores_while_an_image_of_another_store_has_it(db: Db) -> None:
    change(db, {("a", "north"): 2, ("b", "south"): 1})
    north = frozenset({"north"})
    with db.client.start_session() as session:
        assert not tag_counts.is_used_outside(db, session, ["a"], north)
        assert tag_counts.is_used_outside(db, session, ["a", "b"], north)
        assert not tag_counts.is_used_outside(db, session, ["a", "b"], None)
        change(db, {("b", "south"): -1})
        assert not tag_counts.is_used_outside(db, session, ["a", "b"], north)


def test_counting_reads_only_the_index(db: Db) -> None:
    pipeline = [{"$match": {"tag": {"$in": ["a"]}, "store": {"$in": ["north"]}}}, {"$group": {"_id": "$tag", "n": {"$sum": "$n"}}}]
    plan = db.command("explain", {"aggregate": "tag_counts", "pipeline": pipeline, "cursor": {}})
    assert "FETCH" not in str(plan)
    assert "COLLSCAN" not in str(plan)


def test_changes_of_many_threads_add_up(db: Db) -> None:
    keys = [("a", "north"), ("a", "south"), ("b", "north")]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                change(db, dict.fromkeys(keys[(number + step) % 3 :], 1))
        except BaseException as error:  # noqa: BLE001 -- the main thread reports it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    expected = dict.fromkeys(keys, 0)
    for number in range(6):
        for step in range(5):
            for key in keys[(number + step) % 3 :]:
                expected[key] += 1
    assert stored(db) == expected


def test_a_deleted_batch_leaves_the_counts_and_an_image_being_deleted_already_has(db: Db) -> None:
    batch_id = commit_new_batch(db, store=["north", "north", "south", "north"])
    applied = {tag: {"id": tag, "by": None, "at": utc_now()} for tag in "ab"}
    for index, (tags, status) in enumerate([("ab", "queued"), ("b", "queued"), ("a", "queued"), ("", "deleting")]):
        db.images.update_one({"_id": image_id(batch_id, index)}, {"$set": {"tags": [applied[tag] for tag in tags], "status": status}})
    change(db, {("a", "north"): 11, ("b", "north"): 12, ("a", "south"): 13})
    deletion.begin_delete(db, batch_id, None)
    assert stored(db) == {("a", "north"): 10, ("b", "north"): 10, ("a", "south"): 12}


def commit_tagged_batch(db: Db) -> str:
    """Commit a batch whose twelve images in four stores have up to three of five tags each, and return its id."""
    stores = ("north", "south", "west", "east")
    batch_id = commit_new_batch(db, store=[stores[index % 4] for index in range(12)])
    for index in range(12):
        tags = [{"id": tag, "by": None, "at": utc_now()} for tag in "abcde"[index % 3 : index % 3 + index % 4]]
        db.images.update_one({"_id": image_id(batch_id, index)}, {"$set": {"tags": tags}})
    change(db, tag_counts.deltas_of(db.images.find({"batch_id": batch_id}), 1))
    return batch_id


def are_exact(db: Db) -> bool:
    return {pair: n for pair, n in stored(db).items() if n} == dict(tag_counts.deltas_of(db.images.find(), 1))


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit a transaction to few counts."""
    monkeypatch.setattr(tag_counts, "_MAX_PAIRS", 4)


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("is_committed", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("interrupted_at", range(3))
def test_a_batch_with_many_tags_is_removed_in_parts_that_can_be_interrupted(
    db: Db, monkeypatch: pytest.MonkeyPatch, interrupted_at: int, *, is_committed: bool
) -> None:
    batch_id, _other = commit_tagged_batch(db), commit_tagged_batch(db)
    before = sum(stored(db).values())
    deletion.begin_delete(db, batch_id, None)
    at_first = sum(stored(db).values())
    assert before / 2 < at_first < before
    assert are_exact(db)
    parts: list[int] = []

    def interrupt(*arguments: Any) -> Any:
        parts.append(1)
        if len(parts) <= interrupted_at:
            return run_transaction(*arguments)
        if is_committed:
            run_transaction(*arguments)
        raise StoreAway("Interrupted by the test.", retry_after=1)

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "run_transaction", interrupt)
        with pytest.raises(StoreAway):
            deletion.finish_delete(db, batch_id)
    assert are_exact(db)
    assert db.images.count_documents({"batch_id": batch_id}) == 12
    deletion.finish_delete(db, batch_id)
    assert are_exact(db)
    assert sum(stored(db).values()) == before / 2
    assert db.images.count_documents({"batch_id": batch_id}) == 0


@pytest.mark.usefixtures("_small_parts")
def test_the_documents_of_a_batch_stay_until_all_its_images_are_removed_from_the_counts(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "_TAG_PARTS", 1)
    batch_id = commit_tagged_batch(db)
    deletion.begin_delete(db, batch_id, None)
    calls = 0
    while db.images.count_documents({}) == 12:
        deletion.finish_delete(db, batch_id)
        assert are_exact(db)
        calls += 1
    assert calls > 2
    assert not any(stored(db).values())
    assert db.batches.count_documents({}) == 0


def test_the_deletion_of_a_batch_with_few_tags_removes_them_at_once(db: Db) -> None:
    batch_id = commit_tagged_batch(db)
    deletion.begin_delete(db, batch_id, None)
    assert not any(stored(db).values())
    assert db.images.count_documents({"tags": []}) == 12
