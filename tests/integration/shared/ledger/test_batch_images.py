"""The images of batches are read in order and completely, whether the documents are small or large."""

from collections.abc import Sequence

import pytest

from shared.ledger import batch_images, commits
from shared.storage.mongo import Db, Document
from tests.support.ledger import commit_new_batch, new_batch

_DEADLINE_MS = 60_000
_LARGE = {"detections": [{"label": "milk", "score": 0.5, "box": [0.5, 0.5, 1.5, 1.5]}] * 400}


def first(db: Db, batch_ids: Sequence[str], limit: int) -> dict[str, list[int | None]]:
    """Return the indexes of the images that ``read_first`` returns, by batch."""
    found: dict[str, list[int | None]] = {}
    totals = {row["_id"]: row["total"] for row in db.batches.find({"_id": {"$in": list(batch_ids)}}).sort("_id", -1)}
    for batch_id, image in batch_images.read_first(db, totals, None, limit, _DEADLINE_MS):
        found.setdefault(batch_id, []).append(image["index"] if image else None)
    return found


def enlarge(db: Db, batch_id: str, *indexes: int) -> None:
    """Give images so many detections that their documents are read separately."""
    db.images.update_many({"batch_id": batch_id, "index": {"$in": list(indexes)}}, {"$set": _LARGE})


def delete(db: Db, batch_id: str, *indexes: int) -> None:
    """Mark images as deleted."""
    db.images.update_many({"batch_id": batch_id, "index": {"$in": list(indexes)}}, {"$set": {"status": "deleting"}})


def test_the_first_images_of_each_batch_are_read_with_a_mark_if_there_are_more(db: Db) -> None:
    ids = [commit_new_batch(db, count) for count in (7, 2, 3)]
    other = commit_new_batch(db, 1)
    expected = {ids[2]: [0, 1, 2], ids[1]: [0, 1], ids[0]: [0, 1, 2, None]}
    found = first(db, ids, 3)
    assert found == expected
    assert list(found) == list(expected)  # the newest batch is the first
    assert first(db, [*ids, other], 0) == {batch_id: [None] for batch_id in [*ids, other]}
    assert first(db, [], 3) == {}


def test_gaps_left_by_rejected_and_deleted_images_do_not_count(db: Db) -> None:
    dense = new_batch(6)
    spread = [
        commits.NewImage(**{**{name: getattr(image, name) for name in image.__slots__}, "index": image.index * 50})
        for image in dense.images
    ]
    commits.commit_batch(db, commits.NewBatch(dense.id, spread, (), detect=True, created_at=dense.created_at))
    delete(db, dense.id, 0, 150)
    assert first(db, [dense.id], 3) == {dense.id: [50, 100, 200, None]}
    assert first(db, [dense.id], 4) == {dense.id: [50, 100, 200, 250]}
    assert [image["index"] for image in batch_images.read_all(db, dense.id, None, _DEADLINE_MS)] == [50, 100, 200, 250]
    assert [image["index"] for image in batch_images.read_range(db, dense.id, None, 1, 2, _DEADLINE_MS)] == [100, 200]
    delete(db, dense.id, 50, 100, 200, 250)
    assert first(db, [dense.id], 0) == {}


@pytest.mark.parametrize("large", [[], [0], [4], [1, 2, 4], [0, 1, 2, 3, 4]], ids=str)
def test_large_documents_are_in_their_places(db: Db, large: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_images, "_RUN_BYTES", 80_000)  # two of the large documents
    ids = [commit_new_batch(db, 5), commit_new_batch(db, 5)]
    for batch_id in ids:
        enlarge(db, batch_id, *large)
    assert first(db, ids, 5) == {batch_id: [0, 1, 2, 3, 4] for batch_id in ids}
    assert first(db, ids, 2) == {batch_id: [0, 1, None] for batch_id in ids}
    for image in batch_images.read_all(db, ids[0], None, _DEADLINE_MS):
        assert len(image["detections"]) == (400 if image["index"] in large else 0)
        assert "work" not in image


def test_a_batch_of_many_pieces_is_read_completely(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_images, "_PIECE", 4)
    for count in (1, 3, 4, 5, 8, 11):
        batch_id = commit_new_batch(db, count)
        enlarge(db, batch_id, 3, 4)
        assert [image["index"] for image in batch_images.read_all(db, batch_id, None, _DEADLINE_MS)] == list(range(count))
        assert first(db, [batch_id], 1000) == {batch_id: list(range(count))}


def test_an_image_deleted_while_its_piece_is_read_is_left_out(db: Db) -> None:
    batch_id = commit_new_batch(db, 3)
    enlarge(db, batch_id, 1, 2)
    images = batch_images.read_all(db, batch_id, None, _DEADLINE_MS)
    found: list[Document] = [next(images)]  # the sizes of the other documents are known, but not their contents
    delete(db, batch_id, 1)
    found += images
    assert [image["index"] for image in found] == [0, 2]


def test_batches_that_are_read_in_different_ways_are_in_order(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_images, "_PIECE", 4)
    ids = sorted((commit_new_batch(db, count) for count in (2, 6, 3, 3, 7, 1)), reverse=True)
    expected = {batch_id: list(range(count)) for batch_id, count in zip(ids, (1, 7, 3, 3, 6, 2), strict=True)}
    delete(db, ids[2], 1)  # its number of images is now too large
    delete(db, ids[5], 0, 1)
    enlarge(db, ids[3], 0, 2)
    enlarge(db, ids[4], 5)
    found = first(db, ids, 1000)
    expected[ids[2]] = [0, 2]
    del expected[ids[5]]
    assert found == expected
    assert list(found) == list(expected)


def test_only_the_requested_fields_are_read(db: Db) -> None:
    batch_id = commit_new_batch(db, 2)
    enlarge(db, batch_id, 1)
    fields = {"batch_id": 1, "index": 1, "detections": 1}
    assert [set(image) for image in batch_images.read_range(db, batch_id, None, 0, 5, _DEADLINE_MS, fields)] == [
        {"_id", *fields}
    ] * 2
