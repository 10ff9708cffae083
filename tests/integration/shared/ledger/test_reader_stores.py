"""Each reader finds, reads and deletes exactly what belongs to their stores."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.allowed_stores import AllowedStores
from shared.errors import Forbidden, Invalid, NotFound
from shared.ledger import batch_images, commits, deletion, page_index, queries
from shared.ledger.filters import Filters
from shared.ledger.queries import Page
from shared.states import CLOSED, TERMINAL, ImageState, batch_state
from shared.storage.mongo import Db, Document, run_transaction
from tests.integration.shared.ledger.matching import matches
from tests.support.databases import Databases
from tests.support.ledger import batch_id_at, commit_new_batch, new_batch, process_all, utc_now, validate_documents

_DEADLINE_MS = 60_000
_STORES = ["a", "b", "$stores", "c d"]
"""``$stores`` would be the name of a field in an expression of MongoDB."""
_ALLOWED: st.SearchStrategy[AllowedStores] = st.none() | st.frozensets(st.sampled_from([*_STORES, "other"]))
_FILTERS: list[dict[str, Any]] = [
    {},
    {},
    {"store_name": "a"},
    {"store_name": "other"},
    {"camera_id": "cam 1"},
    {"status": "queued"},
    {"status": "failed", "store_name": "$stores"},
    {"status": "partial"},
    {"status": "partial", "store_name": "b"},
    {"status": "partial", "camera_id": "cam 1"},
    {"tag_ids": ("seen",)},
    {"since": datetime(2026, 1, 4)},
]


@dataclass
class Stored:
    """A database, and its documents in Python."""

    db: Db
    batches: dict[str, Document]
    images: dict[str, list[Document]]

    def part(self, batch_id: str, stores: AllowedStores) -> list[Document]:
        """Return the images of a batch that belong to the stores, in order."""
        return [image for image in self.images[batch_id] if stores is None or image["store_name"] in stores]

    def shown(self, batch_id: str, stores: AllowedStores) -> Document:
        """Return what a reader with these stores sees of a batch."""
        counts = Counter(image["status"] for image in self.part(batch_id, stores))
        stored = self.batches[batch_id]
        state = batch_state(counts, counts.total())
        return {
            "_id": batch_id,
            "status": "processing" if stored["counts"] is None and state in CLOSED else state.value,
            "total": counts.total(),
            "counts": {state.value: counts[state.value] for state in ImageState},
            "created_at": stored["created_at"],
            "finished_at": stored["finished_at"],
        }

    def listed(self, filters: Filters, stores: AllowedStores) -> list[Document]:
        """Return what a reader with these stores sees of each batch in a list."""
        return [
            shown
            for batch_id in sorted(self.batches, reverse=True)
            for shown in [self.shown(batch_id, stores)]
            if any(matches(image, shown["status"], filters) for image in self.part(batch_id, stores))
        ]


@pytest.fixture(scope="module")
def stored(databases: Databases) -> Iterator[Stored]:
    """Database with 40 batches, most of them with images of several stores, in all states. The tests only read it."""
    source = random.Random(16)
    with databases.connected() as db:
        batches, images = {}, {}
        for number in range(40):
            batch = new_batch(
                store=source.choices(_STORES, source.choices([[1] * 4, [1, 0, 0, 0], [4, 1, 0, 0]], [5, 1, 2])[0], k=source.randint(1, 6)),
                timestamp=datetime(2026, 1, 1 + number % 7),
                id=batch_id_at(utc_now() - timedelta(hours=2), number),
            )
            header = commits.batch_document(batch)
            states = source.choice([list(ImageState), list(TERMINAL), [ImageState.DONE, ImageState.FAILED], [ImageState.DONE]])
            documents = [
                commits.image_document(batch, image)
                | {"status": source.choice(states).value, "camera_id": f"cam {source.randint(0, 2)}", "tags": source.choice([[], [{"id": "seen"}]])}
                for image in batch.images
            ]
            counts = Counter(image["status"] for image in documents)
            if TERMINAL.issuperset(counts) and source.random() < 0.8:
                header |= {"status": batch_state(counts, len(documents)).value, "counts": {state.value: counts[state.value] for state in ImageState}}
                header["finished_at"] = utc_now()
                del header["open"]
            batches[batch.id], images[batch.id] = header, documents
        db.batches.insert_many(batches.values())
        db.images.insert_many([image for documents in images.values() for image in documents])
        page_index.maintain(db)
        deletion.begin_delete(db, commit_new_batch(db, store=_STORES), None)
        validate_documents(db)
        yield Stored(db, batches, images)


def read_images(db: Db, page: Page, stores: AllowedStores, limit: int) -> dict[str, list[str | None]]:
    """Return the ids of the first images of each batch, and None if a batch has more."""
    totals = {batch["_id"]: batch["total"] for batch in page.batches}
    found: dict[str, list[str | None]] = {batch_id: [] for batch_id in totals}
    for batch_id, image in batch_images.read_first(db, totals, stores, limit, _DEADLINE_MS):
        found[batch_id].append(image["_id"] if image else None)
    return found


@settings(max_examples=40, deadline=None)
@given(_ALLOWED, st.sampled_from(_FILTERS), st.integers(5, 25), st.integers(0, 7))
def test_all_pages_together_are_the_batches_with_a_matching_image_of_the_reader(
    stored: Stored, stores: AllowedStores, fields: dict[str, Any], per_page: int, limit: int
) -> None:
    db, filters = stored.db, Filters(**fields)
    expected = stored.listed(filters, stores)
    searched = len(_STORES) if stores is None else len(stores)
    has_total = stores is None or searched < 2 or filters.store_name is not None
    by_page: list[Document] = []
    for number in range(1, len(expected) // per_page + 3):
        page = queries.page_of_batches(db, filters, stores, number, per_page)
        by_page += page.batches
        assert page.total == (len(expected) if has_total else None)
        assert page.pages == (-(-len(expected) // per_page) if has_total else None)
        is_last = number * per_page >= len(expected)
        assert page.next_cursor == (None if is_last else page.batches[-1]["_id"])
        for batch_id, found in read_images(db, page, stores, limit).items():
            visible = [image["_id"] for image in stored.part(batch_id, stores)]
            assert found == visible[:limit] + ([None] if len(visible) > limit else [])
    assert by_page == expected
    by_cursor: list[Document] = []
    cursor: str | None = queries.NEWEST
    while cursor is not None:
        page = queries.batches_after(db, filters, stores, cursor, per_page)
        by_cursor += page.batches
        cursor = page.next_cursor
    assert by_cursor == expected


@settings(max_examples=12, deadline=None)
@given(_ALLOWED, st.randoms(use_true_random=False))
def test_a_single_batch_and_its_images_are_those_of_the_reader(stored: Stored, stores: AllowedStores, source: random.Random) -> None:
    db = stored.db
    for batch_id in source.sample(sorted(stored.batches), 5):
        part = stored.part(batch_id, stores)
        if part:
            assert queries.get_batch(db, batch_id, stores) == stored.shown(batch_id, stores)
        else:
            with pytest.raises(NotFound):
                queries.get_batch(db, batch_id, stores)
        assert queries.is_closed(db, batch_id, stores) == (not part or stored.batches[batch_id]["counts"] is not None)
        ids = [image["_id"] for image in part]
        assert [image["_id"] for image in batch_images.read_all(db, batch_id, stores, _DEADLINE_MS)] == ids
        assert [image["_id"] for image in batch_images.read_range(db, batch_id, stores, 1, 2, _DEADLINE_MS)] == ids[1:3]
        image_id = source.choice(stored.images[batch_id])["_id"]
        if image_id in ids:
            assert queries.get_image(db, image_id, stores)["_id"] == image_id
        else:
            with pytest.raises(NotFound):
                queries.get_image(db, image_id, stores)


def test_a_reader_of_very_many_stores_reads_lists_like_any_other(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    for at_once in (1, 3):
        monkeypatch.setattr(queries, "_STORES_AT_ONCE", at_once)
        stores = frozenset(["a", "b", "$stores", *(f"empty {number}" for number in range(5))])
        page = queries.page_of_batches(stored.db, Filters(), stores, 2, 9)
        assert page.batches == stored.listed(Filters(), stores)[9:18]


def test_page_numbers_without_a_total_are_limited_and_the_cursor_goes_on(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGED_WITHOUT_TOTAL", 10)
    stores = frozenset({"a", "b"})
    for filters in (Filters(), Filters(since=datetime(2026, 1, 2))):
        expected = stored.listed(filters, stores)
        assert len(expected) > 12
        last = queries.page_of_batches(stored.db, filters, stores, 4, 3)
        assert last.batches == expected[9:12]
        with pytest.raises(Invalid, match="cursor") as raised:
            queries.page_of_batches(stored.db, filters, stores, 5, 3)
        assert [error.pointer for error in raised.value.errors] == ["/page"]
        assert last.next_cursor is not None
        assert queries.batches_after(stored.db, filters, stores, last.next_cursor, 100).batches == expected[12:]
    assert queries.page_of_batches(stored.db, Filters(store_name="a"), stores, 5, 3).total is not None


def test_images_of_large_parts_are_read_in_pieces(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_images, "_PIECE", 4)
    batch_id = commit_new_batch(db, store=["a", "b", "b"] * 6)
    large = [{"label": "milk", "score": 0.5, "box": [0.5, 0.5, 1.5, 1.5]}] * 400
    db.images.update_many({"batch_id": batch_id, "index": {"$in": [3, 4, 9]}}, {"$set": {"detections": large}})
    for store, expected in (("a", [0, 3, 6, 9, 12, 15]), ("b", [1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17])):
        stores = frozenset({store})
        assert [image["index"] for image in batch_images.read_all(db, batch_id, stores, _DEADLINE_MS)] == expected
        first = batch_images.read_first(db, {batch_id: len(expected)}, stores, 5, _DEADLINE_MS)
        assert [image["index"] if image else None for _, image in first] == [*expected[:5], None]


def test_an_image_that_leaves_the_stores_while_its_piece_is_read_is_left_out(db: Db) -> None:
    batch_id = commit_new_batch(db, 3, "a")
    large = [{"label": "milk", "score": 0.5, "box": [0.5, 0.5, 1.5, 1.5]}] * 400
    db.images.update_many({"batch_id": batch_id, "index": {"$gt": 0}}, {"$set": {"detections": large}})
    images = batch_images.read_all(db, batch_id, frozenset({"a"}), _DEADLINE_MS)
    found = [next(images)]  # the sizes of the other documents are known, but not their contents
    db.images.update_one({"batch_id": batch_id, "index": 1}, {"$set": {"store_name": "b"}})
    found += images
    assert [image["index"] for image in found] == [0, 2]


@pytest.mark.parametrize("stores", [[], ["a"], ["b", "c"], ["$stores"]])
def test_a_batch_with_images_of_other_stores_cannot_be_deleted(db: Db, stores: list[str]) -> None:
    batch_id = commit_new_batch(db, store=["a", "b", "a"])
    process_all(db)
    before = [list(db[name].find()) for name in ("batches", "images", "ledger")]
    with pytest.raises(Forbidden) as raised:
        deletion.begin_delete(db, batch_id, frozenset(stores))
    assert raised.value.code == "foreign_store"
    assert [list(db[name].find()) for name in ("batches", "images", "ledger")] == before
    deletion.begin_delete(db, batch_id, frozenset({"a", "b", *stores}))
    for allowed in (None, frozenset(stores)):
        with pytest.raises(NotFound):
            deletion.begin_delete(db, batch_id, allowed)


def test_a_deletion_checks_the_stores_that_the_batch_has_when_it_is_deleted(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = commit_new_batch(db, store="a")

    def change_and_run(db: Db, *arguments: Any) -> Any:
        db.batches.update_one({"_id": batch_id}, {"$set": {"stores": ["a", "b"]}})
        return run_transaction(db, *arguments)

    monkeypatch.setattr("shared.ledger.deletion.run_transaction", change_and_run)
    with pytest.raises(Forbidden):
        deletion.begin_delete(db, batch_id, frozenset({"a"}))
