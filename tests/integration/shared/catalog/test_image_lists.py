"""A list of images is what a scan of all images gives: with each filter, each pair of filters, in each order, by page and cursor."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import combinations, product
from typing import Any

import pytest

from shared.allowed_stores import AllowedStores
from shared.catalog import image_lists
from shared.catalog.image_lists import images_after, page_of_images, read_images
from shared.catalog.image_orders import NEWEST, ORDERS, Position, decode_cursor, encode_cursor
from shared.errors import Invalid, TooSlow
from shared.ids import time_of
from shared.ledger import batch_images
from shared.ledger.filters import Filters
from shared.storage.mongo import Db, Document
from tests.integration.shared.ledger.matching import matches
from tests.support.databases import Databases
from tests.support.ledger import commit_new_batch, validate_documents
from tests.support.random_images import filter_values, insert_images

Stored = tuple[Db, list[Document]]


@pytest.fixture(scope="module")
def stored(databases: Databases) -> Iterator[Stored]:
    """Database with about 400 images. The tests only read it."""
    with databases.connected() as db:
        images = insert_images(db, 1, 120)
        yield db, images
        validate_documents(db)


def value_of(image: Document, sort: str) -> Any:
    """Return the value by which an image is sorted."""
    name = sort.removeprefix("-")
    if name == "created_at":
        return time_of(image["batch_id"])
    if name == "score":
        return max((detection["score"] for detection in image["detections"]), default=None)
    return (image["quality"] or {}).get(name) if name == "sharpness" else image[name]


def expected(images: list[Document], filters: Filters, stores: AllowedStores, sort: str) -> list[str]:
    """Return the ids of the images of a list, in its order."""
    found = [
        (value_of(image, sort), image["_id"])
        for image in images
        if (stores is None or image["store_name"] in stores) and matches(image, "", filters) and value_of(image, sort) is not None
    ]
    return [image_id for _, image_id in sorted(found, reverse=sort.startswith("-"))]


def walk(read: Callable[[str], image_lists.ImagePage]) -> list[str]:
    """Return the ids of all pages by cursor."""
    ids: list[str] = []
    cursor: str | None = NEWEST
    while cursor is not None:
        page = read(cursor)
        ids += [position.image_id for position in page.positions]
        cursor = page.next_cursor
    return ids


def check(stored: Stored, filters: Filters, stores: AllowedStores, sort: str, per_page: int) -> None:
    db, images = stored
    ids = expected(images, filters, stores, sort)
    for number in (1, 2, len(ids) // per_page + 1, len(ids) // per_page + 2):
        page = page_of_images(db, filters, stores, sort, number, per_page)
        first = (number - 1) * per_page
        assert [position.image_id for position in page.positions] == ids[first : first + per_page], filters
        assert (page.total, page.pages) == (len(ids), -(-len(ids) // per_page))
        assert (page.next_cursor is not None) == (len(ids) > first + per_page and first <= len(ids))
    assert walk(lambda cursor: images_after(db, filters, stores, sort, cursor, per_page)) == ids, filters


@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize("stores", [None, frozenset("ab"), frozenset({"c", *map(str, range(250))}), frozenset()], ids=["all", "two", "many", "none"])
def test_a_list_has_all_images_of_the_reader_in_its_order(stored: Stored, sort: str, stores: AllowedStores) -> None:
    check(stored, Filters(), stores, sort, 50)


@pytest.mark.slow
def test_each_filter_in_each_order_gives_what_a_scan_gives(stored: Stored) -> None:
    for name, values in filter_values(stored[1]).items():
        for value, sort in product(values, ORDERS):
            check(stored, Filters(**{name: value}), None, sort, 40)


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [200, -1], ids=["together", "positions-first"])
def test_each_pair_of_filters_gives_what_a_scan_gives(stored: Stored, monkeypatch: pytest.MonkeyPatch, skipped: int) -> None:
    monkeypatch.setattr(image_lists, "_SKIPPED_DOCUMENTS", skipped)
    source, values = random.Random(2), filter_values(stored[1])
    stores: list[AllowedStores] = [None, frozenset("a"), frozenset("bc")]
    for first, second in combinations(values, 2):
        filters = Filters(**{name: source.choice(values[name]) for name in (first, second)})
        check(stored, filters, source.choice(stores), source.choice(list(ORDERS)), 40)


def test_many_filters_at_once_give_what_a_scan_gives(stored: Stored) -> None:
    source, values = random.Random(3), filter_values(stored[1])
    for _ in range(60):
        names = source.sample(sorted(values), source.randint(3, 6))
        check(stored, Filters(**{name: source.choice(values[name]) for name in names}), None, source.choice(list(ORDERS)), 30)


@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize("stores", [None, frozenset(f"{name}{number}" for name in "abc" for number in range(60))], ids=["all", "many"])
def test_a_walk_by_cursor_visits_each_image_once_while_images_are_inserted_and_deleted(db: Db, sort: str, stores: AllowedStores) -> None:
    source = random.Random(5)
    names = [f"{name}{number}" for name in "abc" for number in range(60)]
    images = {image["_id"]: image for image in insert_images(db, 6, 40, names)}
    before = expected(list(images.values()), Filters(), stores, sort)
    walked: list[str] = []
    deleted: set[str] = set()
    cursor: str | None = NEWEST
    while cursor is not None:
        page = images_after(db, Filters(), stores, sort, cursor, 9)
        walked += [position.image_id for position in page.positions]
        cursor = page.next_cursor
        images |= {image["_id"]: image for image in insert_images(db, source.getrandbits(30), 1, names)}
        gone = source.choice(before)
        db.images.update_one({"_id": gone}, {"$set": {"status": "deleting"}})
        deleted.add(gone)
        assert len(walked) < 1000
    assert len(walked) == len(set(walked))
    assert set(walked) >= set(before) - deleted
    ranks = [(value_of(images[image_id], sort), image_id) for image_id in walked]
    assert ranks == sorted(ranks, reverse=sort.startswith("-"))


def test_an_image_whose_state_changes_while_it_is_found_by_its_checksum_is_listed_once(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = commit_new_batch(db, 3, sha256="d" * 64)
    read_rows = batch_images.read_rows

    def finish_after_the_first_query(db: Db, queries: Any, *args: Any) -> list[bytes]:
        rows = read_rows(db, queries[:1], *args)
        assert len(rows) == 3
        db.images.update_many({"batch_id": batch_id, "index": {"$lt": 2}}, {"$set": {"status": "done"}})
        return [*rows, *read_rows(db, queries[1:], *args)]

    monkeypatch.setattr(batch_images, "read_rows", finish_after_the_first_query)
    page = images_after(db, Filters(sha256="d" * 64), None, "-created_at", NEWEST, 10)
    assert [position.image_id for position in page.positions] == [f"{batch_id}{index:04x}" for index in (2, 1, 0)]
    assert [image["status"] for run in read_images(db, page, None) for _, image in run] == ["queued", "done", "done"]


@pytest.mark.parametrize("sort", ["-created_at", "-timestamp", "sharpness"])
def test_totals_are_exact_up_to_the_limit_and_then_unknown(db: Db, monkeypatch: pytest.MonkeyPatch, sort: str) -> None:
    monkeypatch.setattr(image_lists, "MAX_ROWS", 20)
    quality = {"quality": {"sharpness": 1.0}}
    commit_new_batch(db, 20)
    db.images.update_many({}, {"$set": quality})
    assert page_of_images(db, Filters(), None, sort, 1, 6).total == 20
    commit_new_batch(db, 1)
    db.images.update_many({}, {"$set": quality})
    page = page_of_images(db, Filters(), None, sort, 4, 6)
    assert (page.total, page.pages, len(page.positions), page.has_more) == (None, None, 3, False)
    with pytest.raises(Invalid) as raised:
        page_of_images(db, Filters(), None, sort, 5, 6)
    assert [error.pointer for error in raised.value.errors] == ["/page"]
    db.images.update_one({}, {"$set": {"status": "deleting"}})
    assert page_of_images(db, Filters(), None, sort, 1, 6).total == 20


def test_a_page_whose_images_take_too_long_to_count_is_returned_without_a_total(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    db, images = stored
    wanted = expected(images, Filters(min_score=0.7), None, "-created_at")
    assert len(wanted) > 4

    def count_slowly(*_: Any) -> int:
        long_sum = {"$sum": {"$map": {"input": {"$range": [0, 100_000]}, "in": "$$this"}}}
        return db.images.count_documents({"$expr": {"$gt": [long_sum, 0]}}, maxTimeMS=5)  # MongoDB ends it after this time

    with monkeypatch.context() as slow:
        slow.setattr(image_lists, "_count", count_slowly)
        page = page_of_images(db, Filters(min_score=0.7), None, "-created_at", 1, 2)
        beyond = page_of_images(db, Filters(min_score=0.7), None, "-created_at", 1000, 2)
        last = page_of_images(db, Filters(min_score=0.7), None, "-created_at", 1, len(wanted))
    assert ([position.image_id for position in page.positions], page.total, page.pages, page.has_more) == (wanted[:2], None, None, True)
    assert (beyond.positions, beyond.total, beyond.has_more) == ([], None, False)
    assert (last.total, last.pages) == (len(wanted), 1)  # the end of the list shows how many there are
    monkeypatch.setattr(image_lists, "_COUNT_SHARE", 0)
    assert page_of_images(db, Filters(min_score=0.7), None, "-created_at", 1, 2).total is None


_ID = "0" * 36
_BAD_CURSORS = {
    "empty": "",
    "not-base64": "$ne",
    "not-json": "AAAA",
    "not-a-list": "e30",
    "other-alphabet": "é",
    "other-sort": encode_cursor(ORDERS["created_at"], Position(None, _ID)),
    "no-value": encode_cursor(ORDERS["-timestamp"], Position(None, _ID)),
    "no-id": encode_cursor(ORDERS["-timestamp"], Position(1.0, "x")),
    "too-late": encode_cursor(ORDERS["-timestamp"], Position(1e300, _ID)),
}


@pytest.mark.parametrize("cursor", _BAD_CURSORS.values(), ids=_BAD_CURSORS)
@pytest.mark.parametrize("sort", ["-timestamp", "-created_at"])
def test_a_cursor_that_this_order_did_not_give_is_refused(db: Db, cursor: str, sort: str) -> None:
    with pytest.raises(Invalid) as raised:
        images_after(db, Filters(), None, sort, cursor, 5)
    assert (raised.value.code, [error.pointer for error in raised.value.errors]) == ("bad_cursor", ["/cursor"])


@pytest.mark.parametrize("sort", ORDERS)
def test_a_cursor_names_the_same_position_after_it_was_sent(db: Db, sort: str) -> None:
    value: Any = {"timestamp": datetime(1901, 2, 3, 4, 5, 6, 789000), "created_at": None}.get(sort.removeprefix("-"), 0.1 + 0.2)
    position = Position(value, "a" * 36)
    cursor = encode_cursor(ORDERS[sort], position)
    assert decode_cursor(ORDERS[sort], cursor) == position
    assert len(cursor) <= 200


def test_a_list_that_takes_too_long_ends(stored: Stored) -> None:
    with pytest.raises(TooSlow):
        page_of_images(stored[0], Filters(), None, "-created_at", 1, 5, deadline_s=0)
    with pytest.raises(TooSlow):
        images_after(stored[0], Filters(), None, "-score", NEWEST, 5, deadline_s=0)


@pytest.mark.parametrize("sort", ["timestamp", "-score", "created_at"])
@pytest.mark.parametrize("skipped", [200, -1], ids=["together", "positions-first"])
def test_the_images_of_a_page_are_read_in_its_order_without_hidden_fields_and_those_that_were_lost(
    db: Db, monkeypatch: pytest.MonkeyPatch, sort: str, skipped: int
) -> None:
    monkeypatch.setattr(image_lists, "_SKIPPED_DOCUMENTS", skipped)
    insert_images(db, 8, 40)
    ids = [position.image_id for position in page_of_images(db, Filters(), None, sort, 1, 100).positions]
    db.images.update_many({"_id": {"$in": ids[::2]}}, {"$set": {"extra": {"text": "x" * 300_000}}})
    page = page_of_images(db, Filters(), None, sort, 1, 100)
    assert (page.rows is not None) == (skipped == 200)
    assert sum(map(len, page.rows or ())) < 1024 * 1024
    gone, moved = ids[2], ids[4]
    db.images.update_one({"_id": gone}, {"$set": {"status": "deleting"}})
    db.images.update_one({"_id": moved}, {"$set": {"store_name": "foreign"}})
    runs = list(read_images(db, page, frozenset("abc")))
    assert all(len(run) == 1 or (len(run) <= 32 and all(not image["extra"] for _, image in run)) for run in runs)
    found = [image for run in runs for image in run]
    assert [position for position, _ in found] == [position for position in page.positions if position.image_id not in {gone, moved}]
    assert all(image["_id"] == position.image_id for position, image in found)
    assert not {"work", "account", "top_score", "annotated_at", "stub_bytes"} & set().union(*(image for _, image in found))


def test_times_of_equal_ids_do_not_hide_images_behind_each_other(db: Db) -> None:
    for _ in range(3):
        commit_new_batch(db, 30, timestamp=datetime(2026, 1, 1) + timedelta(seconds=1))
    walked = walk(lambda cursor: images_after(db, Filters(), None, "-timestamp", cursor, 7))
    assert walked == sorted((image["_id"] for image in db.images.find({}, {"_id": 1})), reverse=True)
