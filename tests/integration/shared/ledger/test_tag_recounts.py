"""Wrong counts of tags are corrected, also while images are tagged."""

import threading

import pytest

from shared.catalog import tags
from shared.errors import TooSlow
from shared.ledger import deletion, tag_counts, tag_recounts
from shared.ledger.tag_recounts import Correction
from shared.storage.mongo import Db
from tests.integration.shared.catalog.tagging import add, commit_images, recount, remove, stored_counts
from tests.support.ledger import validate_documents


def test_right_counts_stay_and_counts_of_zero_are_deleted(db: Db) -> None:
    north, south = commit_images(db, ["north", "south"])
    add(db, north, "a")
    add(db, south, "a")
    remove(db, south, "a")
    tag = tags.get(db, "a", None).id
    assert db.tag_counts.count_documents({}) == 2
    assert tag_recounts.recount(db, tag, deadline_s=5) == []
    assert [row["_id"] for row in db.tag_counts.find()] == [f"{tag}:north"]
    assert stored_counts(db) == recount(db)
    add(db, south, "a")
    assert stored_counts(db) == recount(db)


def test_wrong_and_missing_counts_are_corrected(db: Db) -> None:
    north, south = commit_images(db, ["north", "south"])
    (gone,) = commit_images(db, ["east"])
    for image in (north, south, gone):
        add(db, image, "a", "other")
    tag = tags.get(db, "a", None).id
    deletion.begin_delete(db, gone[:32], None)
    db.tag_counts.update_one({"_id": f"{tag}:north"}, {"$set": {"n": -3}})
    db.tag_counts.delete_one({"_id": f"{tag}:south"})
    db.tag_counts.insert_one({"_id": f"{tag}:west", "tag": tag, "store": "west", "n": 5})
    assert tag_recounts.recount(db, tag, deadline_s=5) == [Correction(tag, "north", -3, 1), Correction(tag, "south", 0, 1), Correction(tag, "west", 5, 0)]
    assert stored_counts(db) == recount(db)
    assert "west" not in {row["store"] for row in db.tag_counts.find()}
    assert validate_documents(db)


def test_counts_are_exact_if_images_are_tagged_at_the_same_time(db: Db) -> None:
    images = commit_images(db, ["north", "south"] * 6)
    add(db, images[0], "a")
    tag = tags.get(db, "a", None).id
    stop = threading.Event()

    def tag_images() -> None:
        for image in images:
            add(db, image, "a")
        for image in images[::2]:
            remove(db, image, "a")
        stop.set()

    thread = threading.Thread(target=tag_images)
    thread.start()
    while not stop.is_set():
        assert tag_recounts.recount(db, tag, deadline_s=10) == []
    thread.join()
    assert stored_counts(db) == recount(db) == {(tag, "south"): 6}


def test_a_recount_that_takes_too_long_changes_nothing(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a")
    tag = tags.get(db, "a", None).id
    db.tag_counts.update_one({}, {"$set": {"n": 9}})
    with pytest.raises(TooSlow):
        tag_recounts.recount(db, tag, deadline_s=1e-6)
    assert stored_counts(db) == {(tag, "north"): 9}


def test_tags_are_found_in_the_order_of_their_ids(db: Db) -> None:
    ids = sorted(tags.create(db, name, None).id for name in "abc")
    assert tag_recounts.find_tags(db, "", 2) == ids[:2]
    assert tag_recounts.find_tags(db, ids[1], 2) == ids[2:]


def test_counts_of_a_part_of_a_job_stay_until_it_is_settled(db: Db) -> None:
    """A count that is due is corrected as soon as no part has it open, and that is no error to report."""
    north, south = commit_images(db, ["north", "south"])
    add(db, north, "a")
    add(db, south, "a")
    tag = tags.get(db, "a", None).id
    db.tag_counts.update_one({"store": "north"}, {"$set": {"n": 3, "open": 1, "due": True}})
    assert tag_recounts.find_due(db, 5) == [tag]
    assert tag_recounts.recount(db, tag, deadline_s=5) == []
    assert stored_counts(db) == {(tag, "north"): 3, (tag, "south"): 1}
    db.tag_counts.update_one({"store": "north"}, {"$set": {"open": 0}})
    assert tag_recounts.recount(db, tag, deadline_s=5) == []
    assert stored_counts(db) == recount(db)
    assert tag_recounts.find_due(db, 5) == []


def test_images_under_deletion_count_as_long_as_they_have_tags(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_counts, "_MAX_PAIRS", 1)
    images = commit_images(db, ["north", "south"])
    for image in images:
        add(db, image, "a")
    tag = tags.get(db, "a", None).id
    deletion.begin_delete(db, images[0][:32], None)
    assert db.images.count_documents({"status": "deleting", "tags.id": tag}) == 1
    assert tag_recounts.recount(db, tag, deadline_s=5) == []
    assert [(row["store"], row["n"]) for row in db.tag_counts.find()] == [("south", 1)]
