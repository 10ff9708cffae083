"""The page index advances whatever the batches contain, survives interruptions, and is read at a limited cost."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pymongo.collection import Collection

from shared.errors import TooSlow
from shared.ledger import commits, deletion, page_index, segments
from shared.storage.mongo import Db
from tests.support.ledger import batch_id_at, new_batch, utc_now, validate_documents
from tests.support.service_stack import wait_until

_DEADLINE_MS = 60_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make segments, groups and chunks so small that few batches fill them."""
    monkeypatch.setattr(segments, "SEGMENT", 4)
    monkeypatch.setattr(segments, "GROUP", 4)
    monkeypatch.setattr(page_index, "_CHUNK", 3)


def insert(db: Db, stores: list[list[str]], age: timedelta = timedelta(days=1)) -> list[str]:
    """Insert batches with images of the given stores, but without the images. Return the ids, the oldest first."""
    start = utc_now() - age
    ids = [batch_id_at(start + timedelta(seconds=number), number) for number in range(len(stores))]
    headers = [
        commits.batch_document(new_batch(store="any", images=1, id=batch_id)) | {"stores": names}
        for batch_id, names in zip(ids, stores, strict=True)
    ]
    db.batches.insert_many(headers, ordered=False)
    db.ledger.insert_many(
        [{"_id": batch_id, "received": 1, "deleted": 0, "state": "accepted", "at": None} for batch_id in ids]
    )
    return ids


def maintain_all(db: Db) -> int:
    """Add all batches to the page index, and return their number."""
    total = 0
    while added := page_index.maintain(db):
        total += added
    return total


def counts(db: Db, collection: str = "ranks") -> dict[str, int]:
    """Return the sum of the counts of each scope."""
    groups: list[dict[str, Any]] = [
        {"$match": {"scope": {"$exists": True}}},
        {"$group": {"_id": "$scope", "n": {"$sum": "$count"}}},
    ]
    return {row["_id"]: row["n"] for row in db[collection].aggregate(groups)}


def assert_correct(db: Db, store: str | None = None) -> None:
    """Compare every position of a list with the list itself."""
    query = page_index.listed_query(store)
    ids = [row["_id"] for row in db.batches.find(query, {"_id": 1}).sort("_id", -1)]
    for index in range(len(ids)):
        position = page_index.find_position(db, store, index, _DEADLINE_MS)
        assert position.total == len(ids)
        upper = {"_id": {"$lte": position.newest}} if position.newest else {}
        (found,) = db.batches.find({**query, **upper}, {"_id": 1}).sort("_id", -1).skip(position.skip).limit(1)
        assert found["_id"] == ids[index]
        assert position.newest is None or position.skip <= segments.SEGMENT
    assert page_index.find_position(db, store, len(ids), _DEADLINE_MS).total == len(ids)
    validate_documents(db)


@pytest.mark.slow
def test_the_index_advances_over_batches_with_thousands_of_stores(db: Db) -> None:
    """A client can upload such batches. In one transaction, they would exceed MongoDB's limits, and do so at every tick."""
    ids = insert(db, [[f"store {number} {other}" for other in range(100)] for number in range(256)])
    assert maintain_all(db) == len(ids)
    assert db.ranks.find_one({"_id": "cursor"})["at"] == ids[-1]  # type: ignore[index]
    assert counts(db) == {page_index.ALL: 256} | {f"store:store {n} {m}": 1 for n in range(256) for m in range(100)}
    position = page_index.find_position(db, None, 255, _DEADLINE_MS)
    assert (position.newest, position.skip, position.total) == (ids[-1], 255, 256)


@pytest.mark.usefixtures("small")
def test_a_chunk_that_was_interrupted_is_completed_and_not_counted_twice(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_SCOPES_AT_ONCE", 2)
    stores = ["a", "b", "c", "d", "e"]
    insert(db, [stores[: number % 5 + 1] for number in range(60)])
    write, left = segments._write, [0]

    def interrupted(*arguments: Any) -> None:
        if not left[0]:
            raise InterruptedError
        left[0] -= 1
        write(*arguments)

    monkeypatch.setattr(segments, "_write", interrupted)
    for number in range(1000):
        left[0] = 1 + number % 7
        try:
            if not page_index.maintain(db):
                break
        except InterruptedError:
            continue
    assert counts(db) == {page_index.ALL: 60} | {f"store:{name}": 60 - 12 * n for n, name in enumerate(stores)}
    for store in (None, *stores):
        assert_correct(db, store)
    assert page_index.recount(db, 1000) == 0


@pytest.mark.usefixtures("small")
def test_several_sweeps_at_once_count_each_batch_once(db: Db) -> None:
    ids = insert(db, [["a"] if number % 3 else ["a", "b"] for number in range(150)])

    def sweep() -> None:
        for _ in range(40):
            page_index.maintain(db, max_chunks=4)

    def delete() -> None:
        for batch_id in ids[5:100:7]:
            deletion.begin_delete(db, batch_id, None)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work) for work in (sweep, sweep, sweep, delete)]:
            done.result()
    maintain_all(db)
    for store in (None, "a", "b"):
        scope, listed = page_index.scope_of(store), db.batches.count_documents(page_index.listed_query(store))
        assert_contiguous(db, scope)
        # A batch that is deleted while it is added may have been counted. No other count may be wrong.
        assert listed <= counts(db)[scope] <= listed + len(ids[5:100:7])
    while page_index.recount(db, 1000):
        pass
    for store in (None, "a", "b"):
        assert_correct(db, store)


def assert_contiguous(db: Db, scope: str) -> None:
    """Each segment and each group must begin where the one before it ends."""
    for collection in (db.ranks, db.rank_groups):
        after = ""
        for row in collection.find({"scope": scope}).sort("newest", 1):
            assert row["after"] == after
            assert row["newest"] > after
            after = row["newest"]


@pytest.mark.usefixtures("small")
def test_groups_are_correct_while_batches_are_deleted(db: Db) -> None:
    ids = insert(db, [["a"] for _ in range(120)])
    maintain_all(db)
    assert counts(db, "rank_groups")[page_index.ALL] >= 64
    for batch_id in ids[::5]:
        deletion.begin_delete(db, batch_id, None)
    assert page_index.recount(db, 1000) == 0
    assert [segments.verify_group(db, group) for group in db.rank_groups.find()] == [
        False
    ] * db.rank_groups.count_documents({})
    for store in (None, "a"):
        assert_correct(db, store)


@pytest.mark.usefixtures("small")
def test_a_deletion_between_the_snapshot_and_the_commit_of_a_group_is_counted_in_the_group(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = insert(db, [["a"] for _ in range(40)])
    insert_one, decrease, attempts, threads = Collection.insert_one, segments.decrease, [0], list[threading.Thread]()

    def count_attempts(*arguments: Any) -> None:
        attempts[0] += 1
        decrease(*arguments)

    def delete_first(self: Collection[Any], *arguments: Any, **options: Any) -> Any:
        """Delete a batch of the group after its members were counted, and before it is inserted."""
        if self.name == "rank_groups" and not threads:
            thread = threading.Thread(target=deletion.begin_delete, args=(db, ids[0], None))
            threads.append(thread)
            thread.start()
            # The deletion either succeeds, or is repeated because it conflicts with the transaction of the group.
            wait_until(lambda: attempts[0] >= 2 or not thread.is_alive())
        return insert_one(self, *arguments, **options)

    monkeypatch.setattr(segments, "decrease", count_attempts)
    monkeypatch.setattr(Collection, "insert_one", delete_first)
    maintain_all(db)
    (thread,) = threads
    thread.join()
    assert db.batches.count_documents({"listed": True}) == 39
    groups = list(db.rank_groups.find())
    assert sorted(group["scope"] for group in groups if group["after"] < ids[0] <= group["newest"]) == [page_index.ALL, "store:a"]
    assert [segments.verify_group(db, group) for group in groups] == [False] * len(groups)
    assert page_index.recount(db, 1000) == 0
    for store in (None, "a"):
        assert_correct(db, store)


@pytest.mark.usefixtures("small")
def test_a_recount_corrects_groups_together_with_their_segments(db: Db) -> None:
    ids = insert(db, [["a"] for _ in range(120)])
    maintain_all(db)
    db.batches.update_one(
        {"_id": ids[2]}, {"$unset": {"listed": ""}}
    )  # as if a deletion by an older release had missed the counts
    assert page_index.recount(db, 1000) == 4  # a segment and a group of all batches, and of the store
    db.rank_groups.update_one({"scope": page_index.ALL}, {"$inc": {"count": 1}})
    assert sum(page_index.recount(db, 1) for _ in range(db.rank_groups.count_documents({}))) == 1
    assert_correct(db)


@pytest.mark.usefixtures("small")
def test_an_index_of_the_release_without_groups_is_continued(db: Db) -> None:
    ids = insert(db, [["a"] for _ in range(90)])
    for scope in (page_index.ALL, "store:a"):
        for begin in range(0, 60, 3):
            newest = ids[begin + 2]
            after = ids[begin - 1] if begin else ""
            db.ranks.insert_one(
                {
                    "_id": f"{scope}/{newest}",
                    "scope": scope,
                    "after": after,
                    "newest": newest,
                    "count": 3,
                    "checked_at": None,
                }
            )
    db.ranks.insert_one({"_id": "cursor", "at": ids[59]})
    assert_correct(db)
    assert maintain_all(db) == 30
    for store in (None, "a"):
        assert counts(db, "rank_groups")[page_index.scope_of(store)] >= 48
        assert_contiguous(db, page_index.scope_of(store))
        assert_correct(db, store)


@pytest.mark.usefixtures("small")
def test_a_page_reads_few_documents_however_many_segments_there_are(db: Db) -> None:
    insert(db, [["a"] for _ in range(300)])
    maintain_all(db)
    assert db.ranks.count_documents({"scope": page_index.ALL}) >= 75
    db.command("profile", 2)
    try:
        for index in (0, 150, 299):
            page_index.find_position(db, None, index, _DEADLINE_MS)
        found = list(db["system.profile"].find({"ns": {"$regex": r"\.rank"}}))
    finally:
        db.command("profile", 0)
    assert len(found) == 8  # two reads for each page, and a third for each of the two pages in a group
    assert sum(row["docsExamined"] for row in found) == 0  # an index covers the reads
    assert max(row["keysExamined"] for row in found) <= 26


def test_a_page_is_refused_if_too_many_batches_are_missing_in_the_index(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_index, "_MAX_HEAD", 4)
    insert(db, [["a"] for _ in range(4)])
    assert_correct(db)
    insert(db, [["a"]], age=timedelta(hours=2))
    with pytest.raises(TooSlow):
        page_index.find_position(db, None, 0, _DEADLINE_MS)
    maintain_all(db)
    assert_correct(db)


def test_the_index_stops_at_its_time_limit_and_continues_later(db: Db) -> None:
    insert(db, [["a"] for _ in range(600)])
    maintained = [page_index.maintain(db, until=time.monotonic()) for _ in range(4)]
    assert maintained == [256, 256, 88, 0]
    db.ranks.update_many({"scope": {"$exists": True}}, {"$inc": {"count": 1}})
    assert [page_index.recount(db, 8, until=time.monotonic()) for _ in range(6)] == [1, 1, 1, 1, 0, 0]
