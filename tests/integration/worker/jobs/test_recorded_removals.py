"""Bulk tagging and its undo record the tags that they remove, as a change of one image does."""

from datetime import datetime

import pytest
from pymongo import UpdateMany

from shared.catalog import bulk_edits, corrections, image_metadata
from shared.storage.mongo import Db, Document
from tests.integration.worker.jobs.open_parts import PLANNED, at, check, tag_id_of
from tests.integration.worker.jobs.tagging import make_images, read_job, run, start_job, start_undo, tag_now
from tests.support.ledger import validate_documents
from worker.jobs.pipeline import JobPipeline

pytestmark = pytest.mark.usefixtures("tiny_parts")


def recorded(db: Db) -> dict[str, list[Document]]:
    """Return the corrections of each image that has some."""
    images = {image["_id"]: image["corrections"] for image in db.images.find({"corrections": {"$exists": True}}, {"corrections": 1})}
    assert all(stored["count"] == len(stored["entries"]) for stored in images.values())
    return {name: stored["entries"] for name, stored in images.items()}


def removals(db: Db) -> dict[str, tuple[tuple[str | None, tuple[str, ...]], ...]]:
    """Return by whom and which tags were removed from each image."""
    found = {}
    for name, entries in recorded(db).items():
        removed = [entry for entry in entries if entry["field"] == "tags"]
        assert all(entry["number"] == len(entry["removed"]) for entry in removed)
        found[name] = tuple((entry["by"], tuple(entry["removed"])) for entry in removed)
    return found


def test_a_request_records_the_tags_that_it_removes(db: Db) -> None:
    ids = make_images(db, 4)
    tag_now(db, ids[:3], "old")
    tag_now(db, ids[2:], "other")
    assert recorded(db) == {}
    old, other = tag_id_of(db, "old"), tag_id_of(db, "other")
    tag_now(db, ids, "new", remove=("old", "other", "unknown"))
    assert removals(db) == dict.fromkeys(ids[:2], (("anna", (old,)),)) | {ids[2]: (("anna", (old, other)),), ids[3]: (("anna", (other,)),)}
    tag_now(db, ids, "new", remove=("old",))  # nothing changes
    assert sum(map(len, recorded(db).values())) == 4
    validate_documents(db)


def test_a_job_records_the_tags_that_it_removes_and_keeps_what_was_recorded_before(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    for start in range(0, 25, 4):
        tag_now(db, ids[start : start + 4], "old")
    for name in ids[:3]:  # these have the same tags and the same revision, so one command could change them
        image_metadata.correct(db, name, None, {"barcode": name[-4:]}, by="berta")
    before = recorded(db)
    old = tag_id_of(db, "old")
    job_id = start_job(db, "new", remove=("old",))
    run(worker)
    assert read_job(db, job_id)["changed"] == 25
    assert removals(db) == dict.fromkeys(ids, (("anna", (old,)),))
    assert {name: entries[:-1] for name, entries in recorded(db).items() if len(entries) > 1} == before
    times = {image["_id"]: image["updated_at"] for image in db.images.find({}, {"updated_at": 1})}
    assert {name: entries[-1]["at"] for name, entries in recorded(db).items()} == times
    check(db, is_due=False)


def test_images_that_are_alike_are_still_changed_by_one_command(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_images(db, 4)
    tag_now(db, ids, "old")
    groups: list[int] = []
    real = bulk_edits._update_of

    def count(edits: list[bulk_edits.Edit], by: str | None, moment: datetime) -> UpdateMany:
        groups.append(len(edits))
        return real(edits, by, moment)

    monkeypatch.setattr(bulk_edits, "_update_of", count)
    start_job(db, ids=(*ids, *make_images(db, 1)), remove=("old",))
    run(worker)
    assert (groups, len(recorded(db))) == ([4], 4)


def test_images_that_others_change_during_a_part_are_recorded_once(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 10)
    for start in range(0, 10, 4):
        tag_now(db, ids[start : start + 4], "old")
    old = tag_id_of(db, "old")
    start_job(db, remove=("old",))
    at(PLANNED, lambda: [image_metadata.correct(db, name, None, {"barcode": "1"}, by="berta") for name in ids[:3]])
    run(worker)
    assert removals(db) == dict.fromkeys(ids, (("anna", (old,)),))
    assert {name for name, entries in recorded(db).items() if entries[0]["field"] == "barcode"} == set(ids[:3])
    check(db, is_due=False)


def test_an_undo_records_the_tags_that_it_removes_and_not_those_that_it_restores(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 12)
    tag_now(db, ids[:4], "old")
    job_id = start_job(db, "new", remove=("old",))
    run(worker)
    start_undo(db, job_id)
    run(worker)
    old, new = tag_id_of(db, "old"), tag_id_of(db, "new")
    undone = ("anna", (new,))
    assert removals(db) == dict.fromkeys(ids[:4], (("anna", (old,)), undone)) | dict.fromkeys(ids[4:], (undone,))
    check(db, is_due=False)


def test_the_number_of_entries_is_limited(db: Db) -> None:
    ids = make_images(db, 2)
    for _ in range(corrections.MAX_CORRECTIONS + 3):
        tag_now(db, ids, "old")
        tag_now(db, ids, remove=("old",))
    for image in db.images.find():
        stored = image["corrections"]
        assert (len(stored["entries"]), stored["count"]) == (corrections.MAX_CORRECTIONS, corrections.MAX_CORRECTIONS + 3)
    validate_documents(db)
