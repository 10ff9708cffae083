"""Similar images are found completely, in order, without the images that the reader may not see."""

import random
from collections.abc import Sequence
from typing import Any, Final

import pytest

from shared import perceptual_hashes
from shared.allowed_stores import AllowedStores
from shared.catalog import close_hashes, near_duplicates
from shared.catalog.close_hashes import CloseHashes
from shared.catalog.near_duplicates import Page, find_ids, find_page
from shared.errors import Invalid, NotFound
from shared.ids import image_id
from shared.storage.mongo import Db
from tests.support.ledger import commit_new_batch

HASH: Final = "8f0f33a5c3960f1e"


def flip(phash: str, *bits: int) -> str:
    return f"{int(phash, 16) ^ sum(1 << bit for bit in bits):016x}"


def hashed_images(db: Db, hashes: Sequence[str | None], store: str = "north", **fields: Any) -> list[str]:
    """Store done images with these hashes, each with other bytes, and return their ids."""
    batch_id = commit_new_batch(db, len(hashes), store)
    ids = [image_id(batch_id, index) for index in range(len(hashes))]
    for name, phash in zip(ids, hashes, strict=True):
        hash_fields = {} if phash is None else {"phash": phash, "phash_bands": perceptual_hashes.bands(phash)}
        db.images.update_one({"_id": name}, {"$set": {"status": "done", "sha256": name.rjust(64, "0")} | hash_fields | fields})
    return ids


def page(db: Db, name: str, stores: AllowedStores = None, **options: Any) -> Page:
    return find_page(db, name, stores, **{"per_page": 100, **options})


def found(db: Db, name: str, stores: AllowedStores = None, **options: Any) -> list[tuple[int, str]]:
    return [(distance, image["_id"]) for distance, image in page(db, name, stores, **options).images]


def walk(db: Db, name: str, **options: Any) -> list[tuple[int, str]]:
    """Return what all pages contain."""
    rows, after = [], None
    while True:
        part = page(db, name, after=after, **options)
        rows += [(distance, image["_id"]) for distance, image in part.images]
        if part.next_position is None:
            return rows
        after = part.next_position


@pytest.mark.parametrize("max_distance", [0, 1, 3, 4, 6, 7, 10])
def test_the_images_found_are_those_that_a_comparison_with_all_finds(db: Db, max_distance: int) -> None:
    rng = random.Random(max_distance)
    hashes = [flip(HASH, *rng.sample(range(64), rng.randrange(15))) for _ in range(300)]
    first, *others = hashed_images(db, [HASH, *hashes])
    distances = {name: perceptual_hashes.distance(HASH, phash) for name, phash in zip(others, hashes, strict=True)}
    expected = sorted((name for name in others if distances[name] <= max_distance), reverse=True)
    expected.sort(key=lambda name: distances[name])
    assert found(db, first, max_distance=max_distance, per_page=1000) == [(distances[name], name) for name in expected]
    assert [name for _, name in walk(db, first, max_distance=max_distance, per_page=7)] == expected
    if max_distance == near_duplicates.DEFAULT_DISTANCE:
        assert sorted(find_ids(db, first, None)) == sorted(expected)


def test_exact_copies_have_the_distance_zero_with_any_hash_and_with_none(db: Db) -> None:
    first, other, *copies = hashed_images(db, [HASH, HASH, HASH, flip(HASH, 1, 2), flip(HASH, *range(30)), None])
    db.images.update_many({"_id": {"$in": copies}}, {"$set": {"sha256": "c" * 64}})
    db.images.update_one({"_id": first}, {"$set": {"sha256": "c" * 64}})
    assert found(db, first) == [(0, name) for name in sorted([other, *copies], reverse=True)]
    assert walk(db, first, per_page=2) == found(db, first)
    assert len(find_ids(db, first, None)) == 5


def test_of_an_image_without_a_hash_only_exact_copies_are_found(db: Db) -> None:
    first, copy, _, queued = hashed_images(db, [None, None, None, None])
    db.images.update_many({"_id": {"$in": [first, copy, queued]}}, {"$set": {"sha256": "c" * 64}})
    db.images.update_one({"_id": queued}, {"$set": {"status": "queued"}})
    result = page(db, first)
    assert ([image["_id"] for _, image in result.images], result.phash, result.is_complete) == ([copy], None, True)


def test_images_that_are_being_deleted_and_those_of_other_stores_are_left_out(db: Db) -> None:
    first, deleted, same_store = hashed_images(db, [HASH, HASH, HASH])
    foreign, foreign_copy = hashed_images(db, [HASH, None], "south")
    db.images.update_one({"_id": deleted}, {"$set": {"status": "deleting"}})
    db.images.update_many({"_id": {"$in": [first, foreign_copy]}}, {"$set": {"sha256": "c" * 64}})
    assert found(db, first) == [(0, foreign_copy), (0, foreign), (0, same_store)]
    assert found(db, first, frozenset({"north"})) == [(0, same_store)]
    assert find_ids(db, first, frozenset({"north"})) == [same_store]
    for name, stores in ((deleted, None), ("0" * 36, None), (first, frozenset({"south"}))):
        assert find_ids(db, name, stores) == []
        with pytest.raises(NotFound):
            page(db, name, stores)


def test_images_have_their_public_fields(db: Db) -> None:
    first, _ = hashed_images(db, [HASH, HASH])
    ((_, image),) = page(db, first).images
    assert "filename" in image
    assert not image.keys() & {"work", "phash", "phash_bands"}


def test_frequent_hashes_do_not_hide_others(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_hashes, "_AT_ONCE", (20, 20))
    monkeypatch.setattr(close_hashes, "_FREQUENT", 5)
    monkeypatch.setattr(close_hashes, "MAX_ENTRIES", 100)
    first, *same = hashed_images(db, [HASH] * 40)
    frequent, rare = flip(HASH, 0), flip(HASH, 1)
    close = hashed_images(db, [frequent] * 40)
    far = hashed_images(db, [rare])
    assert walk(db, first, per_page=9) == [(0, name) for name in reversed(same)] + [(1, name) for name in sorted(close + far, reverse=True)]
    assert page(db, first, per_page=1000).is_complete


@pytest.mark.parametrize("max_distance", [6, *(pytest.param(most, marks=pytest.mark.slow) for most in (1, 2, 3, 4, 10))])
@pytest.mark.parametrize("own", [(), (0, 1, 2), (0, 17, 33), (0, 16, 17, 32, 48, 49)], ids=["as most", "one band", "three bands", "all bands"])
def test_of_a_fixed_camera_all_images_are_found(db: Db, monkeypatch: pytest.MonkeyPatch, own: tuple[int, ...], max_distance: int) -> None:
    """Each band has too many entries to be read at once, so that the bands with the fewest entries are searched further."""
    monkeypatch.setattr(close_hashes, "_AT_ONCE", (20, 20))
    monkeypatch.setattr(close_hashes, "_IN_STEP", 10)
    rng = random.Random(max_distance)
    phash = flip(HASH, *own)
    hashes = [flip(HASH, *(bit for bit in range(64) if rng.random() < 0.05)) for _ in range(300)]
    first, *others = hashed_images(db, [phash, *hashes])
    distances = {name: perceptual_hashes.distance(phash, other) for name, other in zip(others, hashes, strict=True)}
    expected = sorted((name for name in others if distances[name] <= max_distance), reverse=True)
    expected.sort(key=lambda name: distances[name])
    assert walk(db, first, max_distance=max_distance, per_page=40) == [(distances[name], name) for name in expected]
    assert page(db, first, max_distance=max_distance, per_page=1000).is_complete


def test_a_page_is_complete_if_it_ends_before_images_can_be_missing(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_hashes, "_AT_ONCE", (5, 5))
    monkeypatch.setattr(close_hashes, "MAX_ENTRIES", 20)
    close, far = [HASH, *(flip(HASH, bit) for bit in range(4)), flip(HASH, 3, 40)], [flip(HASH, 1, 20, number) for number in range(21, 60)]
    first, *others = hashed_images(db, close + far)
    whole = page(db, first)
    assert (whole.is_complete, page(db, first, max_distance=2).is_complete) == (False, True)
    assert [image["_id"] for _, image in whole.images][:5] == [*others[3::-1], others[4]]
    begin = page(db, first, per_page=5)
    assert (begin.is_complete, len(begin.images), begin.next_position) == (True, 5, near_duplicates.Position(2, others[4]))
    assert not page(db, first, per_page=20, after=begin.next_position).is_complete
    with pytest.raises(Invalid, match="cannot all be found") as refused:
        find_ids(db, first, None)
    assert refused.value.errors[0].pointer == "/duplicate_of"


def test_a_search_reads_a_bounded_number_of_index_entries(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_AT_ONCE", (20, 20)), ("_IN_STEP", 10), ("MAX_ENTRIES", 100)):
        monkeypatch.setattr(close_hashes, name, value)
    first, *_ = hashed_images(db, [HASH] + [flip(HASH, *{number % 64, number // 2, 7}) for number in range(120)])
    search = CloseHashes(db, HASH, 10)
    found = [phash for distance in range(11) for phash in search.find(distance)]
    assert (search._entries_left >= 0, search.is_complete, len(set(found)) == len(found)) == (True, False, True)
    assert page(db, first, max_distance=10, per_page=1000).images


@pytest.mark.parametrize("change", [{"status": "deleting"}, {"store_name": "south"}], ids=["deleted", "moved"])
def test_an_image_that_is_deleted_or_moved_while_a_page_is_read_is_left_out(db: Db, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]) -> None:
    first, kept, gone = hashed_images(db, [HASH] * 3)
    count = near_duplicates._count_fitting

    def count_and_change(rows: Any) -> int:
        db.images.update_one({"_id": gone}, {"$set": change})
        return count(rows)

    monkeypatch.setattr(near_duplicates, "_count_fitting", count_and_change)
    assert found(db, first, frozenset({"north"})) == [(0, kept)]


def test_a_copy_that_is_being_deleted_is_left_out(db: Db) -> None:
    first, copy, gone = hashed_images(db, [None] * 3)
    db.images.update_many({}, {"$set": {"sha256": "c" * 64}})
    db.images.update_one({"_id": gone}, {"$set": {"status": "deleting"}})
    assert found(db, first) == [(0, copy)]


def test_a_reader_who_may_see_few_of_many_gets_all_of_them_on_short_pages(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_CHECKED", 20)
    first, *own = hashed_images(db, [HASH, flip(HASH, 1), HASH, HASH])
    hashed_images(db, [HASH, flip(HASH, 1)] * 50, "south")
    short = page(db, first, frozenset({"north"}), per_page=2)
    assert short.images == []
    assert short.next_position is not None
    assert [name for _, name in walk(db, first, stores=frozenset({"north"}), per_page=2)] == [own[2], own[1], own[0]]
    assert sorted(find_ids(db, first, frozenset({"north"}))) == sorted(own)
    with pytest.raises(Invalid, match="cannot all be found"):
        find_ids(db, first, frozenset({"north"}), limit=3)


def test_more_ids_than_the_limit_are_refused(db: Db) -> None:
    first, *others = hashed_images(db, [HASH, HASH, flip(HASH, 1), flip(HASH, 2)])
    assert len(find_ids(db, first, None, limit=3)) == len(others)
    with pytest.raises(Invalid, match="More than 2 images"):
        find_ids(db, first, None, limit=2)


def test_a_page_ends_where_its_images_become_too_large(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_PAGE_BYTES", 25_000)
    first, *others = hashed_images(db, [HASH] * 8, extra={"note": "x" * 10_000})
    assert len(page(db, first).images) == 2
    assert [name for _, name in walk(db, first)] == others[::-1]
    monkeypatch.setattr(near_duplicates, "MAX_PAGE_BYTES", 10)
    assert [name for _, name in walk(db, first)] == others[::-1]


def test_many_hashes_at_one_distance_are_merged_in_order(db: Db) -> None:
    first, *others = hashed_images(db, [HASH, *(flip(HASH, bit) for bit in range(20))])
    assert walk(db, first, per_page=6) == [(1, name) for name in reversed(others)]


def test_the_search_reads_only_indexes_until_it_reads_images(db: Db) -> None:
    """Hashes and ids are read from indexes alone. The ids of few hashes are read in the order of the index, and not sorted."""
    hashed_images(db, [HASH] * 50)
    hashes = db.images.find({"phash_bands": {"$in": [1, 2]}, "phash": {"$gt": "", "$nin": [HASH]}}, {"_id": 0, "phash": 1}, hint="phash_bands")
    images = db.images.find({"phash": {"$in": [HASH, flip(HASH, 1)], "$gt": ""}, "_id": {"$ne": "a"}}, {"_id": 1}, hint="phash")
    plans = [str(cursor.explain()["queryPlanner"]["winningPlan"]) for cursor in (hashes, images.sort("_id", -1).limit(5))]
    assert "'FETCH'" not in str(plans)
    assert "'SORT_MERGE'" in plans[1]
    assert "'SORT'" not in plans[1]
