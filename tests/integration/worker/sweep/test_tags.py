"""Tests that the sweep removes the ids of retired tags from images, in a bounded time, and forgets the tags."""

import pytest

from shared.bootstrap import Stores
from shared.catalog import retired_tags, tag_changes, tags
from shared.errors import ShelfsightError
from shared.ledger import tag_recounts
from shared.storage.mongo import Db
from tests.integration.shared.catalog.tagging import add, commit_images, recount, retire_earlier, stored_counts
from worker.sweep import tags as module
from worker.sweep.sweep import Sweep
from worker.sweep.tags import TagSweep

NO_LIMIT = float("inf")


def test_a_tick_of_the_sweep_cleans_up_a_deleted_tag(db: Db, stores: Stores) -> None:
    stores.identity.check()
    (image,) = commit_images(db)
    add(db, image, "a")
    tag_changes.delete(db, "a", None)
    Sweep(stores).tick()
    assert (db.images.find_one({}) or {})["tags"] == []


def test_the_sweep_stops_at_its_limit_and_continues(db: Db, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    images = commit_images(db, ["north"] * 7)
    for image in images:
        add(db, image, "a", "b")
    tag_changes.delete(db, "a", None)
    tag_changes.delete(db, "b", None)
    monkeypatch.setattr(retired_tags, "MAX_IMAGES", 3)
    sweep = TagSweep(stores)
    calls = 0
    while sweep.clean(0):
        calls += 1
        assert stored_counts(db) == recount(db)
    assert calls >= 4
    assert stored_counts(db) == {}
    retire_earlier(db)
    assert not sweep.clean(NO_LIMIT)
    assert retired_tags.find(db, 10) == []


def test_an_error_with_one_tag_does_not_stop_the_others(db: Db, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = commit_images(db)
    add(db, image, "a", "b")
    bad = tags.get(db, "a", None).id
    tag_changes.delete(db, "a", None)
    tag_changes.delete(db, "b", None)
    clean_images = retired_tags.clean_images

    def fail(db: Db, tag_id: str) -> int:
        if tag_id == bad:
            raise ShelfsightError("broken")
        return clean_images(db, tag_id)

    monkeypatch.setattr(retired_tags, "clean_images", fail)
    assert not TagSweep(stores).clean(NO_LIMIT)
    assert [entry["id"] for entry in (db.images.find_one({}) or {})["tags"]] == [bad]


def test_the_sweep_corrects_counts_in_rotation_and_logs_it(db: Db, stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    images = commit_images(db, ["north", "south", "west"])
    for image in images:
        add(db, image, "a", "b", "c")
    right = stored_counts(db)
    monkeypatch.setattr(module, "_RECOUNTED_AT_ONCE", 1)
    sweep = TagSweep(stores)
    for _ in range(2):  # the second rotation begins again at the first tag
        db.tag_counts.update_many({"store": "north"}, {"$inc": {"n": 7}})
        db.tag_counts.delete_many({"store": "south"})
        db.tag_counts.insert_many({"_id": f"{tag}:east", "tag": tag, "store": "east", "n": 0} for tag in {tag for tag, _ in right})
        caplog.clear()
        with caplog.at_level("ERROR", "shelfsight.error"):
            for _ in range(4):
                assert not sweep.clean(NO_LIMIT)
        assert stored_counts(db) == right == recount(db)
        assert db.tag_counts.count_documents({"n": 0}) == 0
        assert len([record for record in caplog.records if "corrected" in record.getMessage()]) == 6


def test_a_tag_that_cannot_be_counted_in_time_is_skipped(db: Db, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = commit_images(db)
    add(db, image, "a", "b")
    slow, other = sorted(tag for tag, _ in stored_counts(db))
    db.tag_counts.update_many({}, {"$inc": {"n": 1}})
    count = tag_recounts.recount

    def count_slowly(db: Db, tag_id: str, *, deadline_s: float) -> list[tag_recounts.Correction]:
        return count(db, tag_id, deadline_s=1e-6 if tag_id == slow else deadline_s)

    monkeypatch.setattr(tag_recounts, "recount", count_slowly)
    TagSweep(stores).clean(NO_LIMIT)
    assert stored_counts(db) == {(slow, "north"): 2, (other, "north"): 1}
