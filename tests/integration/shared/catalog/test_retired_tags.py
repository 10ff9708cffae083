"""The ids of merged and deleted tags are removed from images, and the counts stay exact, whatever interrupts it."""

import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from pymongo.client_session import ClientSession

from shared.catalog import image_tags, retired_tags, tag_changes, tags
from shared.catalog.tag_changes import Change
from shared.errors import ShelfsightError
from shared.ledger import deletion, tag_counts
from shared.storage.mongo import Db
from tests.integration.shared.catalog.tagging import (
    add,
    commit_images,
    find,
    list_names,
    recount,
    remove,
    replace,
    retire_earlier,
    shown,
    stored_counts,
)
from tests.support.ledger import utc_now, validate_documents


def merge(db: Db, name: str, target: str) -> None:
    tag_changes.change(db, name, Change(target, merge=True), None)


def id_of(db: Db, name: str) -> str:
    return tags.get(db, name, None).id


def clean_all(db: Db) -> None:
    for tag_id in retired_tags.find(db, 1000):
        while retired_tags.clean_images(db, tag_id):
            pass
        retired_tags.forget(db, tag_id)


def test_a_merged_tag_is_replaced_and_what_is_shown_stays(db: Db) -> None:
    images = commit_images(db, ["north", "south", "north"])
    add(db, images[0], "x", "a", by="anna")
    add(db, images[1], "b", "y", "a", by="berta")
    add(db, images[2], "a", "z", "b", by="carla")
    old, new = id_of(db, "a"), id_of(db, "b")
    merge(db, "a", "b")
    before = [image_tags.show(db, image_tags.read_image(db, image, None)) for image in images]
    revisions = [row["revision"] for row in db.images.find()]
    assert tags.get(db, "b", None).count == 5  # two images hold both ids
    assert retired_tags.clean_images(db, old) == 3
    assert retired_tags.clean_images(db, old) == 0
    assert [image_tags.show(db, image_tags.read_image(db, image, None)) for image in images] == before
    assert [row["revision"] for row in db.images.find()] == revisions
    assert [[entry["id"] for entry in row["tags"]].count(new) for row in db.images.find()] == [1, 1, 1]
    assert tags.get(db, "b", None).count == 3
    assert stored_counts(db) == recount(db)
    validate_documents(db)


def test_a_deleted_tag_is_removed_with_those_that_were_merged_into_it(db: Db) -> None:
    first, second = commit_images(db, ["north"] * 2)
    add(db, first, "a", "kept")
    add(db, second, "b")
    merge(db, "a", "b")
    tag_changes.delete(db, "b", None)
    clean_all(db)
    assert [[entry["id"] for entry in row["tags"]] for row in db.images.find()] == [[id_of(db, "kept")], []]
    assert stored_counts(db) == recount(db)


def test_a_tag_in_use_is_never_cleaned_up(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a")
    assert retired_tags.find(db, 10) == []
    assert retired_tags.clean_images(db, id_of(db, "a")) == 0
    assert not retired_tags.forget(db, id_of(db, "a"))
    assert shown(db, image) == ["a"]


def test_a_retired_tag_is_forgotten_when_no_writer_can_hold_it_and_its_document_stays_for_a_day(db: Db) -> None:
    (image,) = commit_images(db)
    add(db, image, "a")
    tags.create(db, "b", None)
    old, new = id_of(db, "a"), id_of(db, "b")
    merge(db, "a", "b")
    assert not retired_tags.forget(db, old)  # an image holds it
    clean_all(db)
    assert retired_tags.find(db, 10) == [old]  # a transaction that has read the tag before could still write its id
    retire_earlier(db)
    clean_all(db)
    assert retired_tags.find(db, 10) == []
    assert db.tag_counts.count_documents({"tag": old}) == 0
    stored = db.tags.find_one({"_id": old}) or {}
    assert timedelta(hours=24) < stored["expires_at"] - utc_now() < timedelta(hours=26)
    with db.client.start_session() as session:
        assert tags.find_present_ids(db, session, [old]) == {old: new}
        tag_changes.delete(db, "b", None)
        assert tags.find_present_ids(db, session, [old, new]) == {}


def test_an_image_that_is_tagged_with_an_id_that_was_just_retired_is_cleaned_up_later(db: Db) -> None:
    image, other = commit_images(db, ["north"] * 2)
    add(db, other, "a")
    tags.create(db, "b", None)
    old = id_of(db, "a")
    with db.client.start_session() as session, session.start_transaction():
        stored = db.images.find_one({"_id": image}, session=session) or {}
        ids = tags.resolve(db, session, ["a"], None, create=True)
        merge(db, "a", "b")
        update = image_tags.write(db, session, stored, None, add=ids.values())
        assert update is not None
        db.images.update_one({"_id": image}, update, session=session)
    assert shown(db, image) == ["b"]
    assert find(db, "b") == {image, other}
    retire_earlier(db)
    assert not retired_tags.forget(db, old)
    clean_all(db)
    assert stored_counts(db) == recount(db) == {(id_of(db, "b"), "north"): 2}


def test_images_that_are_being_deleted_are_in_no_count_and_lose_the_id(db: Db) -> None:
    kept, *_ = commit_images(db, ["north"])
    gone, *_ = commit_images(db, ["north"])
    for image in (kept, gone):
        add(db, image, "a")
    tags.create(db, "b", None)
    merge(db, "a", "b")
    deletion.begin_delete(db, gone[:32], None)
    clean_all(db)
    assert stored_counts(db) == recount(db) == {(id_of(db, "b"), "north"): 1}
    retire_earlier(db)
    clean_all(db)
    assert retired_tags.find(db, 10) == []


def test_a_clean_up_that_is_interrupted_anywhere_is_repeated_exactly(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    images = commit_images(db, ["north", "south"] * 5)
    for number, image in enumerate(images):
        add(db, image, "a", *(["b"] if number % 3 == 0 else []))
    old = id_of(db, "a")
    merge(db, "a", "b")
    monkeypatch.setattr(retired_tags, "MAX_IMAGES", 3)
    assert retired_tags.clean_images(db, old) == 3
    assert stored_counts(db) == recount(db)

    change = tag_counts.change

    def die(db: Db, session: ClientSession, deltas: tag_counts.Deltas) -> None:
        change(db, session, deltas)
        raise KeyboardInterrupt

    monkeypatch.setattr(tag_counts, "change", die)
    before = list(db.images.find())
    with pytest.raises(KeyboardInterrupt):
        retired_tags.clean_images(db, old)
    monkeypatch.setattr(tag_counts, "change", change)
    assert list(db.images.find()) == before
    assert stored_counts(db) == recount(db)
    assert [shown(db, image) for image in images] == [["b"]] * 10
    clean_all(db)
    assert stored_counts(db) == recount(db) == {(id_of(db, "b"), "north"): 5, (id_of(db, "b"), "south"): 5}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_after_any_sequence_of_operations_the_counts_are_those_of_the_images(db: Db, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retired_tags, "MAX_IMAGES", 2)
    rng = random.Random(seed)
    images = [image for _ in range(3) for image in commit_images(db, ["north", "south"])]
    expected: dict[str, list[str]] = {image: [] for image in images}  # a simple model: the names of each image
    names = list("abcde")

    def rename(old: str, new: str) -> None:
        for image, held in expected.items():
            expected[image] = list(dict.fromkeys(new if name == old else name for name in held))

    def do_merge() -> None:
        old, new = rng.sample(names, 2)
        try:
            merge(db, old, new)
        except ShelfsightError:
            return
        rename(old, new)

    def do_delete() -> None:
        name = rng.choice(names)
        try:
            tag_changes.delete(db, name, None)
        except ShelfsightError:
            return
        for image, held in expected.items():
            expected[image] = [other for other in held if other != name]

    def do_tag(change: Callable[..., list[str]], plan: Callable[[list[str], list[str]], list[str]]) -> None:
        image, chosen = rng.choice(list(expected)), rng.sample(names, 2)
        expected[image] = plan(expected[image], chosen)
        assert change(db, image, *chosen) == expected[image]

    def do_delete_batch() -> None:
        if len(expected) > 2 and rng.random() < 0.2:
            batch_id = rng.choice(list(expected))[:32]
            deletion.begin_delete(db, batch_id, None)
            for image in [image for image in expected if image.startswith(batch_id)]:
                del expected[image]

    def do_clean() -> None:
        for tag_id in retired_tags.find(db, 10)[:2]:
            retired_tags.clean_images(db, tag_id)
        if rng.random() < 0.3:
            retire_earlier(db)
            for tag_id in retired_tags.find(db, 10):
                retired_tags.forget(db, tag_id)

    actions: list[Callable[[], None]] = [
        do_merge, do_delete, do_delete_batch, do_clean,
        lambda: do_tag(add, lambda held, chosen: list(dict.fromkeys([*held, *chosen]))),
        lambda: do_tag(replace, lambda held, chosen: [*(name for name in held if name in chosen), *(name for name in chosen if name not in held)]),
        lambda: do_tag(remove, lambda held, chosen: [name for name in held if name not in chosen]),
    ]  # fmt: skip
    for _ in range(60):
        rng.choice(actions)()
        assert {image: shown(db, image) for image in expected} == expected
        assert stored_counts(db) == recount(db)
    for name in names:
        assert find(db, name) == {image for image, held in expected.items() if name in held}
    clean_all(db)
    for tag in tags.list_page(db, None, None, 100):
        assert tag.count == sum(tag.name in held for held in expected.values())
    assert {name for held in expected.values() for name in held} <= set(list_names(db))
    validate_documents(db)


def test_deleted_tags_are_found_among_any_number_of_merged_ones(db: Db) -> None:
    image, other = commit_images(db, ["north", "north"])
    add(db, image, "deleted", "into deleted")
    add(db, other, "into present")
    ids = {name: id_of(db, name) for name in ("deleted", "into deleted", "into present")}
    merged = {"key": None, "is_retired": True, "retired_at": utc_now(), "merged_into": tags.create(db, "present", None).id}
    db.tags.insert_many([{"_id": f"{n:032}", "name": f"merged {n}"} | merged for n in range(1100)])  # they come first
    db.tags.update_many({"key": None}, {"$unset": {"key": ""}})
    merge(db, "into present", "present")
    merge(db, "into deleted", "deleted")
    assert retired_tags.find_deleted(db) == ()
    tag_changes.delete(db, "deleted", None)
    assert set(retired_tags.find_deleted(db)) == {ids["deleted"], ids["into deleted"]}
    while retired_tags.clean_images(db, ids["deleted"]):
        pass
    retire_earlier(db)
    assert retired_tags.forget(db, ids["deleted"])
    assert retired_tags.find_deleted(db) == (ids["into deleted"],)  # the image holds this id still
    tag_changes.delete(db, "present", None)
    assert len(retired_tags.find_deleted(db)) == 1103
