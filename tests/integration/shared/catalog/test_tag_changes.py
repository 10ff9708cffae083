"""Tags are created, listed, renamed, merged and deleted, also all at once, and each change is complete at once."""

import threading
import time
from collections.abc import Callable

import pytest
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from shared.catalog import bulk_edits, image_tags, tag_changes, tags
from shared.catalog.tag_changes import Change
from shared.clock import utc_now
from shared.errors import AlreadyExists, Conflict, Forbidden, NotFound
from shared.storage.mongo import Db
from tests.integration.shared.catalog.tagging import (
    add,
    commit_images,
    find,
    list_names,
    recount,
    remove,
    run_together,
    shown,
    stored_counts,
)
from tests.support.ledger import validate_documents


def change(db: Db, name: str, new_name: str | None = None, *, merge: bool = False, stores: frozenset[str] | None = None, **fields: str | None) -> tag_changes.Changed:
    return tag_changes.change(db, name, Change(new_name, fields, merge), stores)


def merge(db: Db, name: str, target: str) -> tag_changes.Changed:
    return change(db, name, target, merge=True)


def test_a_tag_is_created_once(db: Db) -> None:
    created = tags.create(db, "Sale", "anna", description="reduced", color="#ff0000")
    assert tags.get(db, "SALE", None) == created
    assert (created.name, created.description, created.color, created.created_by, created.count) == ("Sale", "reduced", "#ff0000", "anna", 0)
    with pytest.raises(AlreadyExists):
        tags.create(db, "sALE", None)
    with pytest.raises(NotFound):
        tags.get(db, "other", None)
    assert validate_documents(db) == 1


def test_tags_are_listed_by_key_page_by_page(db: Db) -> None:
    for name in ("b", "$where", "A", "é", "Z", "a.b"):
        tags.create(db, name, None)
    listed: list[str] = []
    after = None
    while page := tags.list_page(db, None, after, 2):
        listed += [tag.name for tag in page]
        after = page[-1].key
    assert listed == ["$where", "A", "a.b", "b", "Z", "é"]


def test_counts_of_a_list_are_of_the_images_of_the_reader(db: Db) -> None:
    first, second, third = commit_images(db, ["north", "south", "south"])
    for image in (first, second, third):
        add(db, image, "a")
    add(db, third, "b")
    assert [(tag.name, tag.count) for tag in tags.list_page(db, None, None, 10)] == [("a", 3), ("b", 1)]
    assert [(tag.name, tag.count) for tag in tags.list_page(db, frozenset({"south"}), None, 10)] == [("a", 2), ("b", 1)]
    assert [(tag.name, tag.count) for tag in tags.list_page(db, frozenset({"west"}), None, 10)] == [("a", 0), ("b", 0)]
    assert tags.list_page(db, frozenset(), None, 10) == []


def test_a_renamed_tag_has_the_new_name_at_once_and_no_image_is_written(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "old", "kept")
    before = db.images.find_one({"_id": image})
    changed = change(db, "OLD", "new", color="#00ff00")
    assert (changed.old_name, changed.tag.name, changed.tag.color, changed.tag.count, changed.is_merge, changed.has_changed) == ("old", "new", "#00ff00", 1, False, True)
    assert shown(db, image) == ["new", "kept"]
    assert find(db, "new") == {image}
    assert find(db, "old") == set()
    assert db.images.find_one({"_id": image}) == before
    assert list_names(db) == ["kept", "new"]


def test_a_tag_can_be_renamed_to_another_case_of_its_name_and_described(db: Db) -> None:
    tags.create(db, "sale", None, description="x", color="#00ff00")
    assert change(db, "sale", "SALE").tag.name == "SALE"
    assert change(db, "sale", description=None).tag.description is None
    assert tags.get(db, "sale", None).color == "#00ff00"
    assert not change(db, "sale").has_changed
    assert not change(db, "sale", "SALE", color="#00ff00").has_changed
    assert not merge(db, "sale", "SALE").has_changed
    with pytest.raises(NotFound):
        change(db, "unknown", "other")


def test_a_taken_name_is_refused_without_merge(db: Db) -> None:
    tags.create(db, "a", None)
    tags.create(db, "b", None)
    with pytest.raises(AlreadyExists):
        change(db, "a", "B", color="#00ff00")
    assert tags.get(db, "a", None).color is None


def test_a_merged_tag_is_the_other_one_at_once(db: Db) -> None:
    only_a, only_b, both = commit_images(db, ["north", "south", "north"])
    add(db, only_a, "a")
    add(db, only_b, "b")
    add(db, both, "a", "b")
    before = list(db.images.find())
    merged = merge(db, "a", "B")
    assert (merged.is_merge, merged.tag.name) == (True, "b")
    assert [shown(db, image) for image in (only_a, only_b, both)] == [["b"]] * 3
    assert find(db, "b") == {only_a, only_b, both}
    assert find(db, "a") == set()
    assert list_names(db) == ["b"]
    assert tags.get(db, "b", frozenset({"south"})).count == 1
    assert list(db.images.find()) == before
    with pytest.raises(NotFound):
        merge(db, "a", "b")
    assert remove(db, only_a, "b") == []
    assert add(db, both, "b") == ["b"]
    assert stored_counts(db) == recount(db)
    validate_documents(db)


def test_a_name_that_became_free_can_be_used_again_at_once(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a", "c")
    tags.create(db, "b", None)
    merge(db, "a", "b")
    assert merge(db, "b", "A").tag.name == "A"  # there is no other tag with this name
    assert shown(db, image) == ["A", "c"]
    tag_changes.delete(db, "c", None)
    assert shown(db, image) == ["A"]
    created = tags.create(db, "c", None)
    assert (created.count, find(db, "c")) == (0, set())
    assert add(db, image, "c") == ["A", "c"]
    assert tags.get(db, "c", None).count == 1


def test_tags_that_were_merged_follow_when_the_other_one_is_merged_or_deleted(db: Db) -> None:
    images = commit_images(db, ["north"] * 3)
    for image, name in zip(images, "abc", strict=True):
        add(db, image, name)
    merge(db, "a", "b")
    merge(db, "b", "c")
    assert [shown(db, image) for image in images] == [["c"]] * 3
    assert find(db, "c") == set(images)
    tag_changes.delete(db, "c", None)
    assert [shown(db, image) for image in images] == [[]] * 3
    assert list_names(db) == []
    with pytest.raises(NotFound):
        tag_changes.delete(db, "c", None)


def test_a_deleted_target_takes_nothing_else_with_it(db: Db) -> None:
    first, second = commit_images(db, ["north"] * 2)
    add(db, first, "a", "other")
    add(db, second, "b")
    merge(db, "a", "b")
    tag_changes.delete(db, "b", None)
    assert [shown(db, image) for image in (first, second)] == [["other"], []]
    assert add(db, first, "b") == ["other", "b"]
    assert stored_counts(db) == recount(db)


def test_a_tag_that_is_used_in_other_stores_is_not_changed(db: Db) -> None:
    first, second, third = commit_images(db, ["north", "south", "north"])
    add(db, first, "mine", "alias")
    add(db, second, "shared")
    add(db, third, "shared")
    north = frozenset({"north"})
    for refused in (
        lambda: change(db, "shared", "other", stores=north),
        lambda: change(db, "shared", stores=north, color="#00ff00"),
        lambda: tag_changes.delete(db, "shared", north),
        lambda: change(db, "mine", "shared", merge=True, stores=north, color="#00ff00"),
    ):
        with pytest.raises(Forbidden) as error:
            refused()
        assert error.value.code == "foreign_store"
    assert change(db, "mine", "shared", merge=True, stores=north).tag.count == 2
    assert shown(db, first) == ["shared", "alias"]
    remove(db, second, "shared")
    tag_changes.delete(db, "shared", north)  # now only images of the north have it
    assert shown(db, first) == ["alias"]


def test_images_of_other_stores_that_hold_a_merged_tag_count_as_its_use(db: Db) -> None:
    _, foreign = commit_images(db, ["north", "south"])
    add(db, foreign, "a")
    tags.create(db, "b", None)
    merge(db, "a", "b")
    with pytest.raises(Forbidden):
        tag_changes.delete(db, "b", frozenset({"north"}))


def test_two_merges_in_a_ring_at_the_same_time_leave_one_tag(db: Db) -> None:
    images = commit_images(db, ["north"] * 2)
    for _ in range(5):
        add(db, images[0], "a")
        add(db, images[1], "b")
        run_together(lambda: merge(db, "a", "b"), lambda: merge(db, "b", "a"))
        (name,) = list_names(db)
        assert [shown(db, image) for image in images] == [[name], [name]]
        assert find(db, name) == set(images)
        tag_changes.delete(db, name, None)


def test_merges_in_a_chain_at_the_same_time_end_at_the_last_tag(db: Db) -> None:
    images = commit_images(db, ["north"] * 4)
    for _ in range(5):
        for image, name in zip(images, "abcd", strict=True):
            add(db, image, name)
        results = run_together(lambda: merge(db, "a", "b"), lambda: merge(db, "b", "c"), lambda: merge(db, "c", "d"))
        shown_names = {name for image in images for name in shown(db, image)}
        # A merge onto a name that has just become free is a renaming, so one, two or three tags are left.
        assert shown_names == set(list_names(db))
        assert [len(shown(db, image)) for image in images] == [1] * 4
        assert all(not isinstance(result, Conflict) for result in results)
        targets = {row["_id"]: row for row in db.tags.find()}
        assert all("merged_into" not in targets[row["merged_into"]] for row in targets.values() if "merged_into" in row)
        for name in list_names(db):
            tag_changes.delete(db, name, None)


def test_the_same_merge_twice_at_the_same_time_is_made_once(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a")
    tags.create(db, "b", None)
    results = run_together(*[lambda: merge(db, "a", "b")] * 3)
    assert sum(isinstance(result, tag_changes.Changed) for result in results) == 1
    assert sum(isinstance(result, NotFound) for result in results) == 2
    assert shown(db, image) == ["b"]


def test_a_merge_and_a_deletion_of_its_target_at_the_same_time(db: Db) -> None:
    (image,) = commit_images(db)
    for _ in range(5):
        add(db, image, "a")
        add(db, image, "b")
        run_together(lambda: merge(db, "a", "b"), lambda: tag_changes.delete(db, "b", None))
        # Either both are gone, or the deletion came first and `a` was renamed to `b`.
        assert shown(db, image) == list_names(db)
        assert list_names(db) in ([], ["b"])
        for name in list_names(db):
            tag_changes.delete(db, name, None)


def test_a_name_is_given_once_by_concurrent_renamings_and_creations(db: Db) -> None:
    for name in "abc":
        tags.create(db, name, None)
    results = run_together(*[lambda name=name: change(db, name, "new") for name in "abc"], lambda: tags.create(db, "NEW", None))
    assert sum(isinstance(result, AlreadyExists) for result in results) == 3
    assert sum(name.lower() == "new" for name in list_names(db)) == 1


def test_tagging_and_merging_and_deleting_at_the_same_time_leaves_no_tag_without_a_name(db: Db) -> None:
    images = commit_images(db, ["north"] * 4)
    for _ in range(4):
        tags.create(db, "a", None)
        tags.create(db, "b", None)
        results = run_together(
            lambda: merge(db, "a", "b"), lambda: tag_changes.delete(db, "b", None), *[lambda image=image: add(db, image, "a", "x") for image in images]
        )
        assert all(isinstance(result, list) for result in results[2:]), results
        listed = set(list_names(db))
        assert all(set(shown(db, image)) <= listed for image in images)
        assert stored_counts(db) == recount(db)
        for name in listed - {"x"}:
            tag_changes.delete(db, name, None)


def change_limited(db: Db, how: str) -> None:
    """Change the tag `a` with the rights of somebody who may change tags in one store."""
    north = frozenset({"north"})
    if how == "delete":
        tag_changes.delete(db, "a", north)
    elif how == "merge":
        change(db, "a", "b", merge=True, stores=north)
    else:
        change(db, "a", "c", stores=north)


def tag_one(db: Db, session: ClientSession, image: str) -> None:
    stored = db.images.find_one({"_id": image}, session=session) or {}
    ids = tags.resolve(db, session, ["a"], None, create=True)
    update = image_tags.write(db, session, stored, None, add=ids.values())
    assert update is not None
    db.images.update_one({"_id": image}, update, session=session)


def tag_many(db: Db, session: ClientSession, image: str) -> None:
    images = list(db.images.find({"_id": image}, bulk_edits.FIELDS, session=session))
    ids = bulk_edits.read_ids(db, session, images, tags.resolve(db, session, ["a"], None, create=True).values(), [])
    at = utc_now()
    bulk_edits.write(db, session, bulk_edits.plan(images, ids, None, at).possible, None, at)


@pytest.mark.parametrize("how", ["delete", "merge", "rename"])
@pytest.mark.parametrize("tag", [tag_one, tag_many])
def test_a_tag_that_another_store_begins_to_use_is_not_changed_without_rights_for_it(db: Db, how: str, tag: Callable[[Db, ClientSession, str], None]) -> None:
    """The transaction that tags the image cannot commit after the change, which it has not seen, and is repeated."""
    north, south = commit_images(db, ["north", "south"])
    add(db, north, "a")
    tags.create(db, "b", None)
    before = tags.get(db, "a", None).id
    with db.client.start_session() as session:
        session.start_transaction()
        assert db.tags.find_one({"_id": before}, session=session)  # the transaction sees the tag as it is now
        change_limited(db, how)
        with pytest.raises(OperationFailure) as refused:
            tag(db, session, south)
        assert refused.value.has_error_label("TransientTransactionError")
        session.abort_transaction()
    assert shown(db, south) == []


@pytest.mark.parametrize("how", ["delete", "merge", "rename"])
def test_a_change_without_rights_for_a_store_waits_for_the_transaction_that_begins_to_use_the_tag_there(db: Db, how: str) -> None:
    north, south = commit_images(db, ["north", "south"])
    add(db, north, "a")
    tags.create(db, "b", None)
    results: list[object] = []

    def change_meanwhile() -> None:
        try:
            change_limited(db, how)
        except Forbidden as error:
            results.append(error)

    with db.client.start_session() as session:
        session.start_transaction()
        tag_one(db, session, south)
        thread = threading.Thread(target=change_meanwhile)
        thread.start()
        time.sleep(0.2)  # the change may begin before the transaction ends
        session.commit_transaction()
    thread.join()
    assert len(results) == 1
    assert shown(db, south) == ["a"]
    assert validate_documents(db)


def test_a_tag_in_use_in_a_store_is_not_written_when_more_of_its_images_get_it(db: Db) -> None:
    first, second, third = commit_images(db, ["north", "north", "south"])
    add(db, first, "a")
    before = db.tags.find_one({})
    add(db, second, "a")
    assert db.tags.find_one({}) == before
    add(db, third, "a")
    assert db.tags.find_one({}) != before
