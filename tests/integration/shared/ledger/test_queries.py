"""Lists say what a walk over everything says: by page, by cursor, with every filter, while batches come and go."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.errors import Invalid, NotFound
from shared.ledger import claims, commits, deletion, page_index, queries, results
from shared.ledger.queries import Filters
from shared.ledger.results import Result
from shared.storage.mongo import Db, Document
from tests.support.ledger import batch_id_at, commit_new_batch, new_batch, process_all, utc_now, validate_documents

BATCHES = 60


@pytest.fixture
def filled(db: Db) -> Iterator[Db]:
    """Make 60 batches of one to four images with something different about each."""
    source = random.Random(7)
    for number in range(BATCHES):
        made = new_batch(
            store=[source.choice(["a", "b", "c"]) for _ in range(source.randint(1, 4))],
            camera_id=f"cam {number % 3}",
            barcode=source.choice([None, "4006381333931", "96385074"]),
            timestamp=datetime(2026, 1, 1) + timedelta(days=number % 10),
            id=batch_id_at(utc_now() - timedelta(hours=2), number),
        )
        commits.commit_batch(db, made)
    while (claim := claims.claim(db, "w", 32, 60)).images:
        for image in claim.images:
            if source.random() < 0.15:
                result = Result(image["_id"], image["work"]["fence"], None, ("corrupt", "x"))
            else:
                found = [
                    {"label": label, "score": round(source.random(), 2), "box": [0, 0, 1, 1]}
                    for label in source.sample(["apple", "pear", "milk"], source.randint(0, 2))
                ]
                result = Result(image["_id"], image["work"]["fence"], {"detections": found})
            results.finish(db, "w", [result])
        results.close_batches(db, {image["batch_id"] for image in claim.images})
    for image in list(db.images.find({}, {"_id": 1})):
        if source.random() < 0.2:
            db.images.update_one({"_id": image["_id"]}, {"$set": {"tags": ["seen", "again"][: source.randint(1, 2)]}})
    for number in range(4):  # some still wait
        commits.commit_batch(db, new_batch(2, "a", id=batch_id_at(utc_now() - timedelta(hours=1), number)))
    yield db
    validate_documents(db)


def matches(image: Document, batch_status: str, filters: Filters) -> bool:
    """Say in plain Python what a filter means."""
    partial = filters.status == "partial"
    tests = [
        not partial or batch_status == "partial",
        partial or filters.status in {None, image["status"]},
        filters.tag is None or filters.tag in image["tags"],
        filters.since is None or image["timestamp"] >= filters.since,
        filters.until is None or image["timestamp"] <= filters.until,
        *(getattr(filters, name) in {None, image[name]} for name in ("store_name", "camera_id", "barcode")),
    ]
    if filters.label is not None or filters.min_score is not None:
        tests.append(
            any(
                filters.label in {None, one["label"]}
                and (filters.min_score is None or one["score"] >= filters.min_score)
                for one in image["detections"]
            )
        )
    return all(tests)


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
    {"store_name": "nobody's"},
    {"camera_id": "cam 1"},
    {"barcode": "96385074"},
    {"status": "queued"},
    {"status": "done"},
    {"status": "failed"},
    {"status": "partial"},
    {"label": "apple"},
    {"min_score": 0.8},
    {"label": "apple", "min_score": 0.8},
    {"tag": "again"},
    {"since": datetime(2026, 1, 4)},
    {"until": datetime(2026, 1, 4)},
    {"since": datetime(2026, 1, 3), "until": datetime(2026, 1, 5)},
    {"store_name": "a", "camera_id": "cam 1", "status": "done", "label": "milk"},
    {"store_name": "b", "status": "partial"},
    {"status": "partial", "label": "apple", "min_score": 0.8},
    {"tag": "seen", "min_score": 0.5, "since": datetime(2026, 1, 2)},
]


@pytest.mark.parametrize("asked", FILTERS, ids=lambda asked: ",".join(asked) or "none")
def test_pages_and_cursors_give_what_a_walk_gives(filled: Db, asked: dict[str, Any]) -> None:
    filters = Filters(**asked)
    wanted = expected(filled, filters)
    by_page: list[str] = []
    number = 0
    while True:
        number += 1
        page = queries.page_of_batches(filled, filters, number, 7, 0)
        assert page.total == len(wanted)
        assert page.pages == -(-len(wanted) // 7)
        found = [one["_id"] for one in page.batches]
        if not found:
            break
        by_page += found
        assert page.next_cursor == (by_page[-1] if len(by_page) < len(wanted) else None)
    assert by_page == wanted
    by_cursor: list[str] = []
    cursor: str | None = queries.NEWEST
    while cursor is not None:
        page = queries.batches_after(filled, filters, cursor, 7, 0)
        by_cursor += [one["_id"] for one in page.batches]
        cursor = page.next_cursor
    assert by_cursor == wanted


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ranks_stay_right_while_batches_come_and_go(db: Db, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_index, "SEGMENT", 16)
    monkeypatch.setattr(page_index, "_CHUNK", 8)
    source = random.Random(seed)
    there: dict[str, set[str]] = {}
    begin = utc_now() - timedelta(days=1)
    for step in range(160):
        choice = source.random()
        if choice < 0.65:
            made = new_batch(
                store=[source.choice("abc") for _ in range(2)], id=batch_id_at(begin + timedelta(seconds=step), step)
            )
            commits.commit_batch(db, made)
            there[made.id] = {image.store_name for image in made.images}
        elif choice < 0.8 and there:
            gone = source.choice(sorted(there))
            deletion.begin_delete(db, gone)
            del there[gone]
        elif choice < 0.95:
            page_index.maintain(db, most=source.randint(1, 3))
        else:
            assert page_index.recount(db, 100) == 0  # nothing drifted
    page_index.maintain(db)
    assert db.ranks.count_documents({"scope": page_index.ALL}) > 2
    for store in (None, "a", "b", "c"):
        wanted = sorted((name for name, stores in there.items() if store is None or store in stores), reverse=True)
        for number in range(1, len(wanted) // 4 + 3):
            page = queries.page_of_batches(db, Filters(store_name=store), number, 4, 0)
            assert page.total == len(wanted)
            assert [one["_id"] for one in page.batches] == wanted[(number - 1) * 4 : number * 4]
    validate_documents(db)


def test_a_commit_later_than_its_segment_is_counted_in_by_the_recount(db: Db) -> None:
    begin = utc_now() - timedelta(hours=1)
    for number in range(10):
        commits.commit_batch(db, new_batch(1, id=batch_id_at(begin + timedelta(seconds=2 * number), number)))
    page_index.maintain(db)
    late = new_batch(1, id=batch_id_at(begin + timedelta(seconds=5), 99))
    commits.commit_batch(db, late)
    assert page_index.recount(db) == 2  # of all batches, and of the store
    assert queries.page_of_batches(db, Filters(), 1, 20, 0).total == 11
    assert page_index.recount(db) == 0


def test_a_batch_carries_its_first_images_and_says_when_there_are_more(db: Db) -> None:
    batch_id = commit_new_batch(db, 7)
    (cut,) = queries.page_of_batches(db, Filters(), 1, 1, 3).batches
    assert [image["index"] for image in cut["images"]] == [0, 1, 2]
    assert cut["images_more"] is True
    (whole,) = queries.page_of_batches(db, Filters(), 1, 1, 7).batches
    assert len(whole["images"]) == 7
    assert "images_more" not in whole
    assert len(queries.get_batch(db, batch_id)["images"]) == 7
    assert all("work" not in image for image in whole["images"])


def test_gaps_that_rejected_images_left_do_not_shorten_a_list(db: Db) -> None:
    made = new_batch(3)
    spread = [
        commits.NewImage(**{**{name: getattr(one, name) for name in one.__slots__}, "index": one.index * 50})
        for one in made.images
    ]
    commits.commit_batch(db, commits.NewBatch(made.id, spread, (), detect=True, created_at=made.created_at))
    (cut,) = queries.page_of_batches(db, Filters(), 1, 1, 2).batches
    assert [image["index"] for image in cut["images"]] == [0, 50]
    assert cut["images_more"] is True


def test_a_cursor_of_somebody_else_is_refused(db: Db) -> None:
    with pytest.raises(Invalid) as said:
        queries.batches_after(db, Filters(), "$ne", 5, 0)
    assert said.value.code == "bad_cursor"


def test_what_is_not_there_is_not_found(db: Db) -> None:
    with pytest.raises(NotFound):
        queries.get_batch(db, "0" * 32)
    with pytest.raises(NotFound):
        queries.get_image(db, "0" * 36)
    assert queries.is_closed(db, "0" * 32)


def test_an_empty_list_has_no_pages(db: Db) -> None:
    for page, totals in (
        (queries.page_of_batches(db, Filters(), 1, 20, 10), (0, 0)),
        (queries.batches_after(db, Filters(), queries.NEWEST, 20, 10), (None, None)),
    ):
        assert list(page.batches) == []
        assert (page.total, page.pages, page.next_cursor) == (*totals, None)


def test_a_batch_is_shown_without_the_claims_fields(db: Db) -> None:
    batch_id = commit_new_batch(db, 1)
    assert "work" not in queries.get_batch(db, batch_id)["images"][0]
    assert queries.get_image(db, f"{batch_id}0000")["work"]["fence"] == 0
    process_all(db)
