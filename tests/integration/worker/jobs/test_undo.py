"""Undoing a job reverts what the job has changed, and nothing that people have changed since."""

import random
from datetime import timedelta

import pytest

from shared.accounts import api_keys
from shared.accounts.permissions import ROLES, Rights
from shared.catalog import bulk_undo, image_tags, retired_tags, tag_changes
from shared.catalog.tag_changes import Change
from shared.errors import Forbidden
from shared.jobs import claims, records
from shared.jobs.progress import HeldJob
from shared.jobs.records import ALL_JOBS
from shared.storage.mongo import Db, Document
from tests.integration.worker.jobs.tagging import (
    check_counts,
    each,
    make_images,
    owner_in,
    read_job,
    read_tags,
    run,
    start_job,
    start_undo,
    tag_now,
)
from tests.support.ledger import utc_now, validate_documents
from worker.jobs.pipeline import JobPipeline

pytestmark = pytest.mark.usefixtures("small_parts")


def applied(db: Db) -> dict[str, list[Document]]:
    return {row["_id"]: row["tags"] for row in db.images.find({}, {"tags": 1})}


def without_order(tags: dict[str, list[Document]]) -> dict[str, list[Document]]:
    """Return the tags of images in the order of their ids, because tags of the same time have no order."""
    return {name: sorted(entries, key=lambda entry: entry["id"]) for name, entries in tags.items()}


def remove(db: Db, image_id: str, name: str) -> None:
    image_tags.remove(db, image_id, [name], None, None, lambda _: None)


def test_an_undone_job_leaves_no_trace_in_the_tags(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    tag_now(db, ids[:4], "old", "other")
    tag_now(db, ids[3:5], "new")
    before = applied(db)
    job_id = start_job(db, "new", "more", remove=("old",))
    run(worker)
    assert read_job(db, job_id)["changed"] == 25
    undo_id = start_undo(db, job_id)
    run(worker)
    undone = read_job(db, undo_id)
    assert (undone["status"], undone["total"], undone["done"], undone["changed"]) == ("done", 25, 25, 25)
    assert without_order(applied(db)) == without_order(before)
    assert read_job(db, job_id)["undone_by"] == undo_id
    check_counts(db)
    validate_documents(db)


def test_what_people_have_changed_since_stays(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 6)
    tag_now(db, ids[3:], "old")
    job_id = start_job(db, "new", remove=("old",))
    run(worker)
    remove(db, ids[0], "new")  # a tag of the job that was removed stays removed
    remove(db, ids[1], "new")
    tag_now(db, [ids[1]], "new")  # one that was removed and added again stays
    tag_now(db, [ids[2]], "mine")
    tag_now(db, [ids[3]], "old")  # one that the job has removed, and that was added again, stays as it was added
    readded = applied(db)[ids[3]]
    undo_id = start_undo(db, job_id)
    run(worker)
    assert read_tags(db) == each(ids[:1]) | each([ids[1]], "new") | each([ids[2]], "mine") | each(ids[3:], "old")
    assert [entry for entry in readded if entry in applied(db)[ids[3]]] == [readded[1]]
    assert (read_job(db, undo_id)["done"], read_job(db, undo_id)["changed"]) == (6, 4)
    check_counts(db)


def test_tags_that_were_merged_or_deleted_since_are_undone_as_what_they_are_now(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 8)
    tag_now(db, ids[:2], "lost", "kept")
    tag_now(db, ids[2:4], "target")
    job_id = start_job(db, "merged", remove=("lost", "kept"))
    run(worker)
    tag_changes.change(db, "merged", Change(name="target", merge=True), None)
    tag_changes.delete(db, "lost", None)
    for tag_id in retired_tags.find(db, 9):  # the sweep gives the images the id of the target
        while retired_tags.clean_images(db, tag_id):
            pass
    assert read_tags(db) == each(ids, "target")
    start_undo(db, job_id)
    run(worker)
    assert read_tags(db) == each(ids[:2], "kept") | each(ids[2:4], "target") | each(ids[4:])
    check_counts(db)


def test_a_cancelled_job_is_undone_as_far_as_it_came(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "sale")
    worker.run(lambda: None, 1e-3)
    assert records.cancel(db, job_id, ALL_JOBS)["status"] == "cancelled"
    assert sorted(read_tags(db).values()) == [[]] * 15 + [["sale"]] * 10
    start_undo(db, job_id)
    run(worker)
    assert read_tags(db) == each(ids)


def test_an_undo_that_was_cancelled_is_continued_by_the_next_one(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "sale")
    run(worker)
    first = start_undo(db, job_id)
    worker.run(lambda: None, 1e-3)
    records.cancel(db, first, ALL_JOBS)
    tag_now(db, ids[:1], "sale")
    second = start_undo(db, job_id)
    run(worker)
    assert (read_job(db, first)["done"], read_job(db, second)["done"]) == (10, 15)
    assert read_tags(db) == each(ids[:1], "sale") | each(ids[1:])


def test_credentials_for_fewer_stores_than_the_job_cannot_undo_it_and_do_not_prevent_that_others_do(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 8) + make_images(db, 8, "south")
    job_id = start_job(db, "sale")
    run(worker)
    with pytest.raises(Forbidden) as refused:
        start_undo(db, job_id, owner_in(frozenset({"south"})))
    assert (refused.value.code, read_job(db, job_id)["undone_by"]) == ("foreign_store", None)
    start_undo(db, job_id)
    run(worker)
    assert read_tags(db) == each(ids)


@pytest.mark.parametrize("stores", [["north"], []], ids=str)
def test_an_undo_whose_rights_are_reduced_fails_and_the_next_one_undoes_the_rest(db: Db, worker: JobPipeline, stores: list[str]) -> None:
    ids = make_images(db, 15) + make_images(db, 10, "south")
    rights = Rights(ROLES["tagger"], frozenset({"north", "south"}))
    key, _ = api_keys.create(db, api_keys.NewKey("test", "tagger", rights, None, "operator"))
    owner = owner_in(rights.stores, f"key:{key.id}")
    job_id = start_job(db, "sale", owner=owner)
    run(worker)
    first = start_undo(db, job_id, owner)
    worker.run(lambda: None, 1e-3)
    db.api_keys.update_one({"_id": key.id}, {"$set": {"stores": stores}})
    run(worker)
    failed = read_job(db, first)
    code = "rights_reduced" if stores else "rights_lost"
    assert (failed["status"], failed["changed"], [error["code"] for error in records.errors_of(failed)]) == ("failed", 10, [code])
    tag_now(db, ids[:1], "sale")
    second = start_undo(db, job_id)
    run(worker)
    assert (read_job(db, second)["status"], read_job(db, second)["changed"]) == ("done", 15)
    assert read_tags(db) == each(ids[:1], "sale") | each(ids[1:])
    check_counts(db)


def test_an_undo_works_in_the_stores_of_the_job_and_not_in_all_of_whoever_requests_it(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 8)
    job_id = start_job(db, "sale", owner=owner_in(frozenset({"north"})))
    run(worker)
    db.images.update_one({"_id": ids[0]}, {"$set": {"store_name": "south"}})
    undo_id = start_undo(db, job_id)
    assert read_job(db, undo_id)["stores"] == ["north"]
    run(worker)
    assert read_tags(db) == each(ids[:1], "sale") | each(ids[1:])


def test_an_undo_that_is_cancelled_when_it_has_undone_all_is_done(db: Db, worker: JobPipeline) -> None:
    make_images(db, 15)
    job_id = start_job(db, "sale")
    run(worker)
    undo_id = start_undo(db, job_id)
    for _ in range(2):
        worker.run(lambda: None, 1e-3)
    db.jobs.update_one({"_id": undo_id}, {"$set": {"cancel_requested": True}})
    run(worker)
    assert (read_job(db, undo_id)["status"], read_job(db, undo_id)["changed"]) == ("done", 15)


def test_changes_are_kept_a_day_after_the_end_and_longer_while_they_are_undone(db: Db, worker: JobPipeline) -> None:
    make_images(db, 8)
    job_id = start_job(db, "sale")
    run(worker)

    def kept_for() -> timedelta:
        (change,) = db.job_changes.find()
        return change["expires_at"] - utc_now()  # type: ignore[no-any-return]

    assert timedelta(hours=24) < kept_for() < timedelta(hours=26)
    start_undo(db, job_id)
    assert kept_for() > timedelta(days=29)
    run(worker)
    assert kept_for() < timedelta(hours=26)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_whatever_people_do_meanwhile_only_the_entries_of_the_job_are_undone(db: Db, worker: JobPipeline, seed: int) -> None:
    chance = random.Random(seed)
    ids, names = make_images(db, 30), ["a", "b", "c", "d"]

    def act(count: int) -> None:
        for _ in range(count):
            some = chance.sample(ids, chance.randint(1, 4))
            if chance.random() < 0.6:
                tag_now(db, some, chance.choice(names))
            else:
                tag_now(db, some, remove=(chance.choice(names),))

    act(20)
    before = read_tags(db)
    job_id = start_job(db, "a", remove=("b",))
    run(worker)
    after, entries = read_tags(db), applied(db)
    act(15)
    touched = {name for name in ids if applied(db)[name] != entries[name]}
    start_undo(db, job_id)
    run(worker)
    found = read_tags(db)
    for name in ids:
        if name not in touched:
            assert sorted(found[name]) == sorted(before[name]), (before[name], after[name])
    check_counts(db)


def test_an_undo_whose_worker_dies_is_continued_after_its_last_part(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "sale")
    run(worker)
    undo_id = start_undo(db, job_id)
    claimed = claims.claim(db, "dead", 60)
    assert claimed is not None
    step = bulk_undo.do_part(db, HeldJob("dead", claimed))
    assert step.job is not None
    tag_now(db, ids[:1], "sale")
    db.jobs.update_one({"_id": undo_id}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    claims.expire_leases(db)
    run(worker)
    assert (read_job(db, undo_id)["status"], read_job(db, undo_id)["done"]) == ("done", 25)
    assert read_tags(db) == each(ids[:1], "sale") | each(ids[1:])
