"""Lists by page and by cursor return what a scan of all documents returns, with every filter, while batches are added and deleted."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.errors import Invalid, NotFound
from shared.ledger import claims, closing, commits, deletion, page_index, queries, results, segments
from shared.ledger.filters import Filters
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.integration.shared.ledger.matching import matches
from tests.support.databases import Databases
from tests.support.ledger import batch_id_at, commit_new_batch, new_batch, utc_now, validate_documents

BATCHES = 60


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[Db]:
    """Database with 60 batches of one to four images that differ in their fields. The tests only read it."""
    with databases.connected() as db:
        fill(db)
        yield db
        validate_documents(db)


def fill(db: Db) -> None:
    source = random.Random(7)
    for number in range(BATCHES):
        batch = new_batch(
            store=[source.choice(["a", "b", "c"]) for _ in range(source.randint(1, 4))],
            camera_id=f"cam {number % 3}",
            barcode=source.choice([None, "4006381333931", "96385074"]),
            timestamp=datetime(2026, 1, 1) + timedelta(days=number % 10),
            id=batch_id_at(utc_now() - timedelta(hours=2), number),
        )
        commits.commit_batch(db, batch)
    while (claim := claims.claim(db, "w", 32, 60)).images:
        for image in claim.images:
            if source.random() < 0.15:
                result = Result(image["_id"], image["work"]["fence"], None, ("corrupt", "x"))
            else:
                detections = [
                    {"label": label, "score": round(source.random(), 2), "box": [0, 0, 1, 1]}
                    for label in source.sample(["apple", "pear", "milk"], source.randint(0, 2))
                ]
                result = Result(image["_id"], image["work"]["fence"], {"detections": detections})
            results.finish(db, "w", [result])
        closing.close_batches(db, {image["batch_id"] for image in claim.images})
    for image in list(db.images.find({}, {"_id": 1})):
        if source.random() < 0.2:
            db.images.update_one({"_id": image["_id"]}, {"$set": {"tags": [{"id": "seen"}, {"id": "again"}][: source.randint(1, 2)]}})
        if source.random() < 0.2:
            labels = source.sample(["apple", "pear", "milk"], source.randint(0, 2))
            db.images.update_one({"_id": image["_id"]}, {"$set": {"annotations": [annotation(label) for label in labels]}})
    for number in range(4):  # these stay queued
        commits.commit_batch(db, new_batch(2, "a", id=batch_id_at(utc_now() - timedelta(hours=1), number)))


def annotation(label: str) -> dict[str, Any]:
    return {"id": label, "label": label, "box": [0, 0, 1, 1], "by": None, "at": datetime(2026, 1, 1), "from": "drawn"}


def expected(db: Db, filters: Filters) -> list[str]:
    status = {row["_id"]: row["status"] for row in db.batches.find({"listed": True})}
    found = {
        image["batch_id"]
        for image in db.images.find()
        if image["batch_id"] in status and matches(image, status[image["batch_id"]], filters)
    }
    return sorted(found, reverse=True)


FILTERS: list[dict[str, Any]] = [
    {},
    {"store_name": "a"},
    {"store_name": "unknown"},
    {"camera_id": "cam 1"},
    {"barcode": "96385074"},
    {"status": "queued"},
    {"status": "done"},
    {"status": "failed"},
    {"status": "partial"},
    {"label": "apple"},
    {"min_score": 0.8},
    {"label": "apple", "min_score": 0.8},
    {"tag_ids": ("again",)},
    {"since": datetime(2026, 1, 4)},
    {"until": datetime(2026, 1, 4)},
    {"since": datetime(2026, 1, 3), "until": datetime(2026, 1, 5)},
    {"store_name": "a", "camera_id": "cam 1", "status": "done", "label": "milk"},
    {"store_name": "b", "status": "partial"},
    {"status": "partial", "label": "apple", "min_score": 0.8},
    {"tag_ids": ("seen",), "min_score": 0.5, "since": datetime(2026, 1, 2)},
]


@pytest.mark.parametrize("fields", FILTERS, ids=lambda fields: ",".join(fields) or "none")
def test_pages_and_cursors_return_what_a_scan_returns(filled: Db, fields: dict[str, Any]) -> None:
    filters = Filters(**fields)
    expected_ids = expected(filled, filters)
    by_page: list[str] = []
    number = 0
    while True:
        number += 1
        page = queries.page_of_batches(filled, filters, None, number, 7)
        assert page.total == len(expected_ids)
        assert page.pages == -(-len(expected_ids) // 7)
        ids = [row["_id"] for row in page.batches]
        if not ids:
            break
        by_page += ids
        assert page.next_cursor == (by_page[-1] if len(by_page) < len(expected_ids) else None)
    assert by_page == expected_ids
    by_cursor: list[str] = []
    cursor: str | None = queries.NEWEST
    while cursor is not None:
        page = queries.batches_after(filled, filters, None, cursor, 7)
        by_cursor += [row["_id"] for row in page.batches]
        cursor = page.next_cursor
    assert by_cursor == expected_ids


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_the_page_index_stays_correct_while_batches_are_added_and_deleted(
    db: Db, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 16)
    monkeypatch.setattr(segments, "GROUP", 2)
    monkeypatch.setattr(page_index, "_CHUNK", 8)
    source = random.Random(seed)
    stores_of: dict[str, set[str]] = {}
    first_at = utc_now() - timedelta(days=1)
    for step in range(160):
        choice = source.random()
        if choice < 0.65:
            batch = new_batch(
                store=[source.choice("abc") for _ in range(2)], id=batch_id_at(first_at + timedelta(seconds=step), step)
            )
            commits.commit_batch(db, batch)
            stores_of[batch.id] = {image.store_name for image in batch.images}
        elif choice < 0.8 and stores_of:
            deleted_id = source.choice(sorted(stores_of))
            deletion.begin_delete(db, deleted_id, None)
            del stores_of[deleted_id]
        elif choice < 0.95:
            page_index.maintain(db, max_chunks=source.randint(1, 3))
        else:
            assert page_index.recount(db, 100) == 0  # no count has drifted
    page_index.maintain(db)
    assert db.ranks.count_documents({"scope": page_index.ALL}) > 2
    for store in (None, "a", "b", "c"):
        expected_ids = sorted(
            (batch_id for batch_id, stores in stores_of.items() if store is None or store in stores), reverse=True
        )
        for number in range(1, len(expected_ids) // 4 + 3):
            page = queries.page_of_batches(db, Filters(store_name=store), None, number, 4)
            assert page.total == len(expected_ids)
            assert [row["_id"] for row in page.batches] == expected_ids[(number - 1) * 4 : number * 4]
    validate_documents(db)


def test_a_recount_adds_a_commit_later_than_its_segment(db: Db) -> None:
    first_at = utc_now() - timedelta(hours=1)
    for number in range(10):
        commits.commit_batch(db, new_batch(1, id=batch_id_at(first_at + timedelta(seconds=2 * number), number)))
    page_index.maintain(db)
    late = new_batch(1, id=batch_id_at(first_at + timedelta(seconds=5), 99))
    commits.commit_batch(db, late)
    assert page_index.recount(db) == 2  # the count of all batches, and that of the store
    assert queries.page_of_batches(db, Filters(), None, 1, 20).total == 11
    assert page_index.recount(db) == 0


def test_an_unknown_cursor_is_refused(db: Db) -> None:
    with pytest.raises(Invalid) as raised:
        queries.batches_after(db, Filters(), None, "$ne", 5)
    assert raised.value.code == "bad_cursor"


def test_an_unknown_batch_or_image_is_not_found(db: Db) -> None:
    with pytest.raises(NotFound):
        queries.get_batch(db, "0" * 32, None)
    with pytest.raises(NotFound):
        queries.get_image(db, "0" * 36, None)
    assert queries.is_closed(db, "0" * 32, None)


def test_an_empty_list_has_no_pages(db: Db) -> None:
    for page, totals in (
        (queries.page_of_batches(db, Filters(), None, 1, 20), (0, 0)),
        (queries.batches_after(db, Filters(), None, queries.NEWEST, 20), (None, None)),
    ):
        assert page.batches == []
        assert (page.total, page.pages, page.next_cursor) == (*totals, None)


def test_hidden_fields_are_not_returned(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    for batch in (queries.get_batch(db, batch_id, None), queries.page_of_batches(db, Filters(), None, 1, 1).batches[0]):
        assert set(batch) == {"_id", "status", "total", "counts", "created_at", "finished_at"}
    assert queries.get_image(db, f"{batch_id}0000", None)["work"]["fence"] == 0
