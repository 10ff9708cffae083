"""What is recorded, in the transaction of a change, when people correct, move, annotate an image, or remove its tags."""

from datetime import datetime
from typing import Any

import pytest

from shared.catalog import annotations, image_metadata, image_tags, tags
from shared.catalog.annotations import NewBox
from shared.errors import Forbidden, Invalid
from shared.storage.mongo import Db
from tests.integration.shared.catalog.tagging import add, commit_images, no_precondition, replace
from tests.support.ledger import process_all, utc_now, validate_documents


def recorded(db: Db, image_id: str) -> list[dict[str, Any]]:
    """Return the corrections of an image without their times, which are checked."""
    image = db.images.find_one({"_id": image_id})
    assert image is not None
    stored = image.get("corrections", {"entries": [], "count": 0})
    assert stored["count"] == len(stored["entries"])
    assert all(abs((utc_now() - entry.pop("at")).total_seconds()) < 600 for entry in stored["entries"])
    return list(stored["entries"])


def test_a_correction_records_each_field_that_has_changed(db: Db) -> None:
    (image_id,) = commit_images(db)
    before = db.images.find_one({"_id": image_id})
    assert before is not None
    moment = datetime(2026, 2, 3)
    fields = {"timestamp": moment, "store_name": "north", "camera_id": "$cam", "barcode": None, "extra": {"a": [1]}}
    image_metadata.correct(db, image_id, None, fields, by="ann")
    assert recorded(db, image_id) == [
        {"by": "ann", "field": "camera_id", "from": before["camera_id"], "to": "$cam"},
        {"by": "ann", "field": "extra"},
        {"by": "ann", "field": "timestamp", "from": before["timestamp"], "to": moment},
    ]
    image_metadata.correct(db, image_id, None, fields, by="ann")  # nothing changes
    assert len(recorded(db, image_id)) == 3
    validate_documents(db)


def test_a_move_to_another_store_is_recorded_and_a_refused_one_is_not(db: Db) -> None:
    (image_id,) = commit_images(db)
    image_metadata.correct(db, image_id, None, {"store_name": "south", "barcode": "1"})
    with pytest.raises(Forbidden):
        image_metadata.correct(db, image_id, frozenset({"south"}), {"store_name": "west"}, by="ann")
    assert recorded(db, image_id) == [
        {"by": None, "field": "barcode", "from": None, "to": "1"},
        {"by": None, "field": "store_name", "from": "north", "to": "south"},
    ]
    validate_documents(db)


def test_each_change_of_annotations_records_their_number(db: Db) -> None:
    (image_id,) = commit_images(db)
    process_all(db)
    found = [{"label": "apple", "score": 0.9, "box": [0.0, 0.0, 1.0, 1.0]}]
    db.images.update_one({"_id": image_id}, {"$set": {"detections": found}})
    box = NewBox("pear", [0, 0, 1, 1])
    annotations.replace(db, image_id, None, [box], "ann", lambda _: None)
    annotations.accept_detections(db, image_id, None, 0.0, "bob", lambda _: None)
    annotations.accept_detections(db, image_id, None, 0.0, "bob", lambda _: None)  # nothing changes
    annotations.replace(db, image_id, None, [], None, lambda _: None)
    annotations.remove(db, image_id, None, "cyd", lambda _: None)
    with pytest.raises(Invalid):
        annotations.replace(db, image_id, None, [NewBox("pear", [5, 5, 5, 5])], "ann", lambda _: None)
    assert [(entry["field"], entry["by"], entry["boxes"]) for entry in recorded(db, image_id)] == [
        ("annotations", "ann", 1), ("annotations", "bob", 2), ("annotations", None, 0), ("annotations", "cyd", None),
    ]  # fmt: skip
    validate_documents(db)


def test_removed_tags_are_recorded_and_added_ones_are_not(db: Db) -> None:
    (image_id,) = commit_images(db)
    add(db, image_id, "a", "b", "c")
    ids = {tag.name: tag.id for tag in image_tags.show(db, image_tags.read_image(db, image_id, None))}
    assert recorded(db, image_id) == []
    replace(db, image_id, "c", "d", by="ann")
    image_tags.remove_one(db, image_id, "D", None, "bob", no_precondition)
    image_tags.remove(db, image_id, ["unknown"], None, "bob", no_precondition)
    first, second = recorded(db, image_id)
    assert first == {"by": "ann", "field": "tags", "removed": [ids["a"], ids["b"]], "number": 2}
    assert second == {"by": "bob", "field": "tags", "removed": [tags.get(db, "d", None).id], "number": 1}
    validate_documents(db)
