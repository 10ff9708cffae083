"""A part of a job that its worker has not ended still changes each image once, and can be undone."""

from collections.abc import Callable

import pytest
from pymongo.errors import AutoReconnect

from shared import failpoints, settings
from shared.bootstrap import open_stores
from shared.catalog import (
    bulk_edits,
    bulk_undo,
)
from shared.errors import StoreAway
from shared.jobs import progress, records
from shared.jobs.progress import JobLost
from shared.jobs.records import ALL_JOBS
from shared.storage.mongo import Db
from tests.integration.worker.jobs.open_parts import (
    PARTLY,
    PLANNED,
    WRITTEN,
    Died,
    at,
    check,
    die_in_part,
    do_part,
    expire,
    revisions,
    tag,
)
from tests.integration.worker.jobs.tagging import (
    each,
    make_images,
    read_job,
    read_tags,
    run,
    start_job,
    start_undo,
)
from tests.support.ledger import validate_documents
from worker.jobs.pipeline import JobPipeline
from worker.sweep import jobs as job_sweep

pytestmark = pytest.mark.usefixtures("tiny_parts")


@pytest.mark.parametrize(("point", "written"), [(PLANNED, 0), (PARTLY, 4), (WRITTEN, 10)])
def test_a_part_whose_worker_died_changes_each_image_once_and_is_undone_whole(db: Db, worker: JobPipeline, point: str, written: int) -> None:
    ids = make_images(db, 25)
    tag(db, ids[::2], "old")
    before, revised = read_tags(db), {row["_id"]: row.get("revision") or 0 for row in db.images.find()}
    job_id = start_job(db, "new", remove=("old",))
    die_in_part(db, point)
    assert list(read_tags(db).values()).count(["new"]) == written
    validate_documents(db)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["total"], job["done"], job["changed"]) == ("done", 25, 25, 25)
    assert read_tags(db) == each(ids, "new")
    assert {row["_id"]: row["revision"] - revised[row["_id"]] for row in db.images.find()} == dict.fromkeys(ids, 1)
    assert sorted(image["id"] for change in db.job_changes.find() for image in change["images"]) == ids
    check(db, is_due=True)
    undo_id = start_undo(db, job_id)
    die_in_part(db, point, bulk_undo.do_part)
    run(worker)
    assert (read_job(db, undo_id)["done"], read_job(db, undo_id)["changed"]) == (25, 25)
    assert read_tags(db) == before
    check(db, is_due=True)


def test_a_worker_that_loses_the_lease_stops_before_the_next_command(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 10)
    start_job(db, "new")
    at(PARTLY, lambda: expire(db))
    with pytest.raises(JobLost):
        do_part(db)
    assert list(read_tags(db).values()).count(["new"]) == 4
    run(worker)
    assert read_tags(db) == each(ids, "new")
    assert revisions(db) == {1}
    check(db, is_due=True)


def test_a_worker_that_has_lost_the_lease_after_the_last_command_settles_nothing(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 10)
    job_id = start_job(db, "new")

    def take_over() -> None:
        expire(db)
        failpoints.install(None)
        run(worker)

    at(WRITTEN, take_over)
    with pytest.raises(JobLost):
        do_part(db)
    assert (read_job(db, job_id)["status"], read_job(db, job_id)["changed"]) == ("done", 10)
    assert read_tags(db) == each(ids, "new")
    check(db, is_due=True)


def test_a_command_of_a_worker_that_was_frozen_changes_no_image_that_the_job_or_its_undo_has_changed(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 5)
    job_id = start_job(db, "new")
    real = bulk_edits.write_unchanged
    delayed: list[Callable[[], int]] = []

    def delay(*arguments: object) -> int:
        delayed.append(lambda: real(*arguments))  # type: ignore[arg-type]
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk_edits, "write_unchanged", delay)
        with pytest.raises(Died):
            do_part(db)
    expire(db)
    run(worker)
    assert delayed[0]() == 0
    start_undo(db, job_id)
    run(worker)
    assert delayed[0]() == 0
    assert read_tags(db) == each(ids)
    check(db, is_due=True)


def test_an_error_after_a_command_was_executed_is_found_out(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_images(db, 10)
    job_id = start_job(db, "new")
    real = bulk_edits.write_unchanged

    def fail(*arguments: object) -> int:
        real(*arguments)  # type: ignore[arg-type]
        raise AutoReconnect("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(bulk_edits, "write_unchanged", fail)
        with pytest.raises(StoreAway):
            do_part(db)
    expire(db)
    run(worker)
    assert (read_job(db, job_id)["changed"], revisions(db)) == (10, {1})
    assert read_tags(db) == each(ids, "new")
    check(db, is_due=True)


@pytest.mark.parametrize(("point", "written"), [(PLANNED, 0), (PARTLY, 4)])
@pytest.mark.parametrize("sweeps", [True, False])
def test_a_job_that_ends_with_an_open_part_is_settled_and_undone_as_far_as_it_came(
    db: Db, mongo: settings.Mongo, redis_url: str, worker: JobPipeline, point: str, written: int, *, sweeps: bool
) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "new")
    die_in_part(db, point)
    assert records.cancel(db, job_id, ALL_JOBS)["status"] == "cancelled"
    if sweeps:
        assert [job["_id"] for job in progress.find_unsettled(db, 5)] == [job_id]
        stores = open_stores(settings.Settings(mongo=mongo, redis=settings.Redis(url=redis_url)), app="test", db=db)
        assert job_sweep.repair(stores)
        for publisher in stores.wakeups.values():
            publisher.close()
        assert not progress.find_unsettled(db, 5)
        assert read_job(db, job_id)["changed"] == written
        check(db, is_due=True)
    start_undo(db, job_id)
    run(worker)
    assert read_tags(db) == each(ids)
    assert read_job(db, job_id)["changed"] == written
    check(db, is_due=True)


def test_a_part_that_was_begun_by_a_job_whose_rights_are_lost_is_settled(db: Db, worker: JobPipeline) -> None:
    make_images(db, 10)
    job_id = start_job(db, "new")
    die_in_part(db, PARTLY)
    db.jobs.update_one({"_id": job_id}, {"$set": {"actor": "user:nobody"}})
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["error"]["code"], job["changed"]) == ("failed", "rights_lost", 4)
    db.jobs.update_one({"_id": job_id}, {"$unset": {"rest": ""}})
    check(db, is_due=True)
