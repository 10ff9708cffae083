"""Tags of one image: who and when, what stays as it is, limits, rights, and concurrent changes."""

import pytest

from shared.catalog import image_tags, suggestions, tag_changes, tags
from shared.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from shared.ledger import deletion
from shared.storage.mongo import Db
from tests.integration.shared.catalog.tagging import (
    add,
    commit_images,
    find,
    list_names,
    no_precondition,
    recount,
    remove,
    replace,
    run_together,
    shown,
    stored_counts,
)
from tests.support.ledger import validate_documents


def test_a_new_name_makes_a_tag_and_case_does_not_count(db: Db) -> None:
    first, second = commit_images(db, ["north", "south"])
    assert add(db, first, "Sale", "SALE", "new", by="anna") == ["Sale", "new"]
    assert add(db, second, "sale", by="key:1") == ["Sale"]
    assert find(db, "SALE") == {first, second}
    assert list_names(db) == ["new", "Sale"]
    tag = tags.get(db, "sale", None)
    assert (tag.created_by, tag.count) == ("anna", 2)
    assert tags.get(db, "sale", frozenset({"south"})).count == 1
    (applied,) = image_tags.show(db, image_tags.read_image(db, second, None))
    assert applied.by == "key:1"
    assert stored_counts(db) == recount(db)
    validate_documents(db)


def test_tags_that_stay_keep_by_whom_and_when_they_were_applied(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a", "b", by="anna")
    before = image_tags.show(db, image_tags.read_image(db, image, None))
    assert replace(db, image, "c", "B", by="berta") == ["b", "c"]
    kept, new = image_tags.show(db, image_tags.read_image(db, image, None))
    assert kept == before[1]
    assert new.by == "berta"
    assert add(db, image, "b", by="berta") == ["b", "c"]
    assert image_tags.show(db, image_tags.read_image(db, image, None)) == [kept, new]
    assert replace(db, image) == []
    assert stored_counts(db) == recount(db) == {}


def test_without_a_change_nothing_is_written(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a", "b")
    before = db.images.find_one({"_id": image})
    add(db, image, "a")
    replace(db, image, "B", "A")
    remove(db, image, "c", "d")
    replaced = image_tags.replace(db, image, ["a", "b"], None, None, no_precondition)
    assert db.images.find_one({"_id": image}) == before == replaced
    assert list_names(db) == ["a", "b"]


def etag(db: Db, image: str) -> str:
    return image_tags.etag(image_tags.show(db, image_tags.read_image(db, image, None)))


def test_a_change_has_a_new_etag_and_an_old_one_is_refused(db: Db) -> None:
    (image,) = commit_images(db)
    before = etag(db, image)
    add(db, image, "a")
    assert etag(db, image) != before

    def refuse(now: str) -> None:
        if now == before:
            return
        raise PreconditionFailed("changed")

    with pytest.raises(PreconditionFailed):
        image_tags.add(db, image, ["b"], None, None, refuse)
    assert shown(db, image) == ["a"]
    assert list_names(db) == ["a"]


def test_the_etag_is_that_of_the_tags_alone(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a")
    before = etag(db, image)
    db.images.update_one({"_id": image}, {"$set": {"status": "done"}, "$inc": {"revision": 1, "work.fence": 1}})
    assert etag(db, image) == before


def test_only_the_fields_that_are_shown_are_read(db: Db) -> None:
    (image,) = commit_images(db)
    found = [{"label": "milk", "score": 0.5, "box": [0.0, 0.0, 1.0, 1.0]}]
    db.images.update_one({"_id": image}, {"$set": {"detections": found, "annotations": None}})
    assert image_tags.read_image(db, image, None) == {"_id": image, "tags": []}
    stored = suggestions.read_image(db, image, None)
    assert (stored["detections"], stored.keys() <= {"_id", "tags", "detections", "annotations", "rejected_labels"}) == ([{"label": "milk", "score": 0.5}], True)
    assert [found.label for found in suggestions.suggest(db, stored).found] == ["milk"]


def test_one_tag_is_removed_and_a_second_time_it_is_not_found(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a", "b")
    image_tags.remove_one(db, image, "A", None, None, no_precondition)
    assert shown(db, image) == ["b"]
    for name in ("a", "unknown"):
        with pytest.raises(NotFound):
            image_tags.remove_one(db, image, name, None, None, no_precondition)
    assert remove(db, image, "a", "b", "unknown") == []


def test_an_image_has_at_most_100_tags(db: Db) -> None:
    (image,) = commit_images(db)
    names = [f"tag {number:03}" for number in range(101)]
    assert len(add(db, image, *names[:100])) == 100
    with pytest.raises(Invalid) as refused:
        add(db, image, names[100])
    assert refused.value.errors[0].pointer == "/tags"
    assert len(list_names(db)) == 100
    assert add(db, image, *names[:100]) == names[:100]
    assert replace(db, image, names[100]) == [names[100]]


def test_there_are_at_most_10000_tags(db: Db) -> None:
    (image,) = commit_images(db)
    db.tags.insert_many([tags.new_document(f"tag {number}", None) for number in range(9_999)])
    with pytest.raises(Conflict) as refused:
        add(db, image, "one", "two")
    assert refused.value.code == "too_many_tags"
    assert shown(db, image) == []
    add(db, image, "one", "tag 7")
    with pytest.raises(Conflict) as refused:
        tags.create(db, "two", None)
    assert refused.value.code == "too_many_tags"
    tag_changes.delete(db, "tag 8", None)
    tags.create(db, "two", None)


def test_images_of_other_stores_are_neither_read_nor_changed(db: Db) -> None:
    (image,) = commit_images(db)
    south = frozenset({"south"})
    with pytest.raises(NotFound):
        image_tags.read_image(db, image, south)
    with pytest.raises(Forbidden) as refused:
        add(db, image, "a", stores=south)
    assert refused.value.code == "foreign_store"
    assert list_names(db) == []
    with pytest.raises(NotFound):
        add(db, "0" * 36, "a")


def test_a_deleted_image_is_not_tagged(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a")
    deletion.begin_delete(db, image[:32], None)
    with pytest.raises(NotFound):
        add(db, image, "b")
    assert stored_counts(db) == {}
    assert tags.get(db, "a", None).count == 0


def test_concurrent_changes_of_one_image_are_all_made(db: Db) -> None:
    (image,) = commit_images(db)
    results = run_together(*(lambda name=name: add(db, image, name, "shared") for name in "abcdef"))
    assert all(isinstance(result, list) for result in results)
    assert sorted(shown(db, image)) == [*"abcdef", "shared"]
    assert stored_counts(db) == recount(db)


def test_the_same_new_name_at_the_same_time_makes_one_tag(db: Db) -> None:
    images = commit_images(db, ["north", "south"] * 4)
    for name in ("one", "two", "three"):
        results = run_together(*(lambda image=image, name=name: add(db, image, name) for image in images))
        assert all(isinstance(result, list) for result in results), results
        assert find(db, name) == set(images)
    assert sorted(list_names(db)) == ["one", "three", "two"]
    assert stored_counts(db) == recount(db)
