"""A job queues finished images again that meet filters: each once, not too many at a time, and as far as its rights go."""

import threading
from pathlib import Path

import pytest

from shared import settings
from shared.accounts import api_keys
from shared.accounts.permissions import ROLES, Rights, Scope
from shared.catalog import bulk_reprocessing, bulk_tags, job_images, tag_changes, tags
from shared.errors import Conflict, Forbidden, TooSlow
from shared.jobs import claims as job_claims
from shared.jobs import records, undo
from shared.jobs.progress import HeldJob
from shared.jobs.records import ALL_JOBS, JobOwner
from shared.ledger import audit, cancellation, claims, deletion, reprocessing
from shared.ledger.filters import Filters
from shared.ledger.reprocessing import Options
from shared.storage.mongo import Db
from tests.integration.worker.jobs.reprocessing import (
    LOW,
    fail_all,
    make_done,
    process,
    start_reprocessing,
    times_queued,
)
from tests.integration.worker.jobs.tagging import (
    OWNER,
    make_images,
    make_worker,
    owner_in,
    read_job,
    run,
    start_job,
    tag_now,
)
from tests.support.ledger import commit_new_batch, process_all, validate_documents
from worker.jobs.pipeline import JobPipeline

_MODEL = {"name": "m", "version": "1", "weights_sha256": "a" * 64}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_reprocessing, "_PART", 10)


def outcome(db: Db, job_id: str) -> tuple[str, int | None, int, int, list[str]]:
    job = read_job(db, job_id)
    return job["status"], job["total"], job["done"], job["changed"], [error["code"] for error in records.errors_of(job)]


@pytest.mark.usefixtures("small_parts")
def test_a_job_queues_the_images_that_match_when_it_is_requested(db: Db, worker: JobPipeline) -> None:
    north, _ = make_done(db, 25), make_done(db, 15, "south")
    job_id = start_reprocessing(db, Filters(store_name="north"), options=Options(("grayscale",), detect=False, priority="low"))
    make_done(db, 3)
    run(worker)
    assert outcome(db, job_id) == ("done", 25, 25, 25, [])
    assert times_queued(db, job_id) == dict.fromkeys(north, 1)
    queued = list(db.images.find({"status": "queued"}))
    assert {image["_id"] for image in queued} == set(north)
    for image in queued:
        work = image["work"]
        assert (work["augmentations"], work["detect"], work["priority"]) == (["grayscale"], False, "low")
        (request,) = image["history"]["requests"]
        assert (request["by"], request["options"]["only"], request["options"]["priority"]) == ("anna", "all", "low")
    validate_documents(db)
    process(db)
    assert audit.balance(db)["done"] == 43
    assert times_queued(db) == dict.fromkeys(north, 1)
    with pytest.raises(Conflict) as refused:
        undo.request(db, job_id, ALL_JOBS, OWNER)
    assert refused.value.code == "not_undoable"
    assert records.undo_until(read_job(db, job_id)) is None
    validate_documents(db)


@pytest.mark.slow
def test_three_thousand_images_are_queued_in_parts(db: Db, worker: JobPipeline) -> None:
    ids = make_done(db, 3000)
    job_id = start_reprocessing(db)
    run(worker)
    assert outcome(db, job_id) == ("done", 3000, 3000, 3000, [])
    assert times_queued(db, job_id) == dict.fromkeys(ids, 1)
    assert db.batches.count_documents({"reprocessing": {"$exists": True}}) == 0


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("only", "number"), [("failed", 16), ("cancelled", 15), ("all", 46)])
def test_only_chooses_images_by_their_state(db: Db, worker: JobPipeline, only: str, number: int) -> None:
    make_done(db, 15)
    for _ in range(2):
        make_images(db, 8)
        fail_all(db)
    for _ in range(3):
        cancellation.cancel(db, commit_new_batch(db, 5), None)
    wanted = {image["_id"] for image in db.images.find({} if only == "all" else {"status": only})}
    assert len(wanted) == number
    job_id = start_reprocessing(db, only=only)
    run(worker)
    assert outcome(db, job_id) == ("done", len(wanted), len(wanted), len(wanted), [])
    assert set(times_queued(db, job_id)) == wanted


def test_filters_that_contradict_the_choice_choose_nothing(db: Db, worker: JobPipeline) -> None:
    make_done(db, 3)
    job_ids = [start_reprocessing(db, Filters(status="done"), "failed"), start_reprocessing(db, Filters(tag_ids=()))]
    run(worker)
    assert [outcome(db, job_id) for job_id in job_ids] == [("done", 0, 0, 0, [])] * 2


def test_stale_uses_the_model_that_was_active_at_the_request(db: Db, worker: JobPipeline) -> None:
    old, new = make_images(db, 3), []
    process(db, model=_MODEL, detections=[])
    new = make_images(db, 2)
    process(db, model=_MODEL | {"weights_sha256": "b" * 64}, detections=[])
    job_id = start_reprocessing(db, only="stale", weights_sha256="b" * 64)
    run(worker)
    assert set(times_queued(db, job_id)) == set(old)
    assert not times_queued(db).keys() & set(new)


def test_failed_images_are_chosen_by_the_code_of_their_error_and_keep_their_priority(db: Db, worker: JobPipeline) -> None:
    make_images(db, 4)
    corrupt = fail_all(db)
    make_images(db, 3)
    fail_all(db, "truncated")
    db.images.update_one({"_id": corrupt[0]}, {"$set": {"work.priority": "high"}})
    job_id = start_reprocessing(db, only="failed", options=Options(), error_code="corrupt")
    run(worker)
    assert outcome(db, job_id) == ("done", 4, 4, 4, [])
    assert {image["_id"]: image["work"].get("priority") for image in db.images.find({"status": "queued"})} == dict.fromkeys(corrupt) | {corrupt[0]: "high"}


def test_a_request_for_a_batch_raises_the_priority_that_a_job_has_lowered(db: Db, worker: JobPipeline) -> None:
    batch_id = commit_new_batch(db, 3)
    process_all(db)
    start_reprocessing(db)
    run(worker)
    process_all(db)
    db.images.update_one({"batch_id": batch_id, "index": 0}, {"$set": {"work.priority": "high"}})
    db.images.update_one({"batch_id": batch_id, "index": 1}, {"$unset": {"work.priority": ""}})
    assert reprocessing.reprocess(db, batch_id, {}, Options(priority="normal"), None).queued == 3
    assert [image["work"].get("priority") for image in db.images.find().sort("index", 1)] == ["high", None, None]
    validate_documents(db)


@pytest.mark.usefixtures("small_parts")
def test_a_job_waits_while_many_images_are_queued_and_goes_on_after_they_are_processed(
    db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_reprocessing, "MAX_QUEUED", 20)
    ids = make_done(db, 50)
    job_id = start_reprocessing(db)
    for handled in (20, 40):
        run(worker)
        job = read_job(db, job_id)
        assert (job["status"], job["total"], job["done"], job["changed"], job["attempts"]) == ("queued", 50, handled, handled, 0)
        assert db.images.count_documents({"status": "queued"}) == 20
        assert db.jobs.count_documents({"_id": job_id, "$expr": {"$gt": ["$not_before", "$$NOW"]}}) == 1
        process_all(db)
        db.jobs.update_one({"_id": job_id}, [{"$set": {"not_before": "$$NOW"}}])
    run(worker)
    assert outcome(db, job_id) == ("done", 50, 50, 50, [])
    assert times_queued(db) == dict.fromkeys(ids, 1)


@pytest.mark.usefixtures("small_parts")
def test_a_job_that_waits_does_not_keep_the_worker_from_other_jobs(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_reprocessing, "MAX_QUEUED", 5)
    monkeypatch.setattr(bulk_tags, "MAX_IN_REQUEST", 4)
    make_images(db, 12)
    waiting = start_reprocessing(db)
    tagging = start_job(db, "sale")
    run(worker)
    assert [read_job(db, job_id)["status"] for job_id in (waiting, tagging)] == ["queued", "done"]


@pytest.mark.usefixtures("small_parts")
def test_a_cancelled_job_queues_nothing_more_and_what_it_has_queued_stays_queued(
    db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_reprocessing, "MAX_QUEUED", 20)
    make_done(db, 50)
    job_id = start_reprocessing(db)
    run(worker)
    assert records.cancel(db, job_id, ALL_JOBS)["status"] == "cancelled"
    process_all(db)
    run(worker)
    assert outcome(db, job_id) == ("cancelled", 50, 20, 20, [])
    assert len(times_queued(db)) == 20


@pytest.mark.usefixtures("small_parts")
def test_a_job_that_is_cancelled_while_it_runs_ends_after_its_part(db: Db, worker: JobPipeline) -> None:
    make_done(db, 25)
    job_id = start_reprocessing(db)
    claimed = job_claims.claim(db, "worker-b", 60)
    assert claimed is not None
    held = bulk_reprocessing.do_part(db, HeldJob("worker-b", claimed)).job
    assert held is not None
    records.cancel(db, job_id, ALL_JOBS)
    job_claims.release(db, "worker-b", [held.lease])
    run(worker)
    assert outcome(db, job_id) == ("cancelled", None, 10, 10, [])


def test_cancelling_needs_the_scope_of_the_kind(db: Db) -> None:
    job_id = start_reprocessing(db)
    with pytest.raises(Forbidden) as refused:
        records.cancel(db, job_id, ALL_JOBS, {"tags:write"})
    assert (refused.value.code, refused.value.extra) == ("missing_scope", {"scope": "images:write"})
    assert records.cancel(db, job_id, ALL_JOBS, {"images:write"})["status"] == "cancelled"


@pytest.mark.usefixtures("small_parts")
def test_images_of_batches_with_images_of_other_stores_are_left_and_counted(db: Db, worker: JobPipeline) -> None:
    mixed = commit_new_batch(db, store=["north", "south"] * 4)
    pure = make_done(db, 12)
    job_id = start_reprocessing(db, owner=owner_in(frozenset({"north"})))
    run(worker)
    assert outcome(db, job_id) == ("done", 16, 16, 12, ["foreign_store"])
    assert records.errors_of(read_job(db, job_id))[0]["detail"].endswith("images of other stores: 4.")
    assert set(times_queued(db)) == set(pure)
    assert db.batches.find_one({"_id": mixed})["generation"] == 0  # type: ignore[index]


def test_images_that_are_not_finished_or_whose_batch_is_being_cancelled_are_left_and_counted(db: Db, worker: JobPipeline) -> None:
    done = make_done(db, 4)
    being_cancelled = commit_new_batch(db, 3)
    held = claims.claim(db, "slow", 1, 60)
    assert len(held.images) == 1
    assert cancellation.cancel(db, being_cancelled, None).running == 1
    make_images(db, 2)
    job_id = start_reprocessing(db)
    run(worker)
    assert outcome(db, job_id) == ("done", 9, 9, 4, ["batch_busy", "not_finished"])
    assert read_job(db, job_id)["omitted"] == {"batch_busy": 2, "not_finished": 3}
    assert set(times_queued(db)) == set(done)


@pytest.mark.usefixtures("small_parts")
def test_deleted_batches_are_skipped(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [commit_new_batch(db, 10) for _ in range(3)]
    process_all(db)
    job_id = start_reprocessing(db)
    real = bulk_reprocessing._do_chosen

    def delete_and_do(db: Db, job: HeldJob, *arguments: object) -> HeldJob:
        if job.document["done"] == 10:
            deletion.begin_delete(db, batches[1], None)
        return real(db, job, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk_reprocessing, "_do_chosen", delete_and_do)
    run(worker)
    assert outcome(db, job_id) == ("done", 30, 30, 20, [])


@pytest.mark.usefixtures("small_parts")
def test_two_jobs_over_the_same_images_queue_each_image_at_most_once_each(
    db: Db, worker: JobPipeline, mongo: settings.Mongo, blobs_root: Path
) -> None:
    ids = make_done(db, 200)
    job_ids = [start_reprocessing(db), start_reprocessing(db)]
    other = make_worker(db, mongo, blobs_root, "worker-b")
    threads = [threading.Thread(target=run, args=(each,)) for each in (worker, other)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        process_all(db)
    for thread in threads:
        thread.join()
    other.stop()
    process_all(db)
    for job_id in job_ids:
        status, total, done, changed, _ = outcome(db, job_id)
        queued = times_queued(db, job_id)
        assert (status, total, done, changed, set(queued.values())) == ("done", 200, 200, len(queued), {1} if queued else set())
    assert set(times_queued(db)) == set(ids)
    assert audit.balance(db) == {"received": 200, "done": 200, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 0}


def key_of(db: Db, scopes: frozenset[Scope]) -> str:
    """Return the actor that is a new API key with these scopes in all stores."""
    key, _ = api_keys.create(db, api_keys.NewKey("test", None, Rights(scopes, None), None, "operator"))
    return f"key:{key.id}"


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("change", "status", "queued", "codes"),
    [
        ({}, "done", 20, []),
        ({"stores": ["north"]}, "done", 10, ["rights_reduced"]),
        ({"scopes": sorted(ROLES["tagger"])}, "failed", 0, ["rights_lost"]),
        ({"scopes": ["admin"]}, "failed", 0, ["rights_lost"]),
    ],
    ids=["one-scope", "fewer-stores", "tagger", "admin-scope-only"],
)
def test_rights_are_read_before_each_part(
    db: Db, worker: JobPipeline, change: dict[str, list[str]], status: str, queued: int, codes: list[str]
) -> None:
    make_done(db, 10)
    make_done(db, 10, "south")
    actor = key_of(db, frozenset({"images:write"}))
    job_id = start_reprocessing(db, owner=JobOwner(actor, actor, actor, None))
    if change:
        db.api_keys.update_one({}, {"$set": change})
    run(worker)
    assert (read_job(db, job_id)["status"], len(times_queued(db)), outcome(db, job_id)[4]) == (status, queued, codes)


@pytest.mark.parametrize(("scopes", "status"), [({"admin"}, "done"), ({"images:write"}, "failed")], ids=["admin", "images-write"])
def test_a_retry_of_an_administrator_needs_the_scope_of_its_route(db: Db, worker: JobPipeline, scopes: set[Scope], status: str) -> None:
    make_images(db, 2)
    fail_all(db)
    actor = key_of(db, frozenset(scopes))
    job_id = start_reprocessing(db, only="failed", options=Options(), scope="admin", owner=JobOwner(actor, actor, actor, None))
    run(worker)
    assert read_job(db, job_id)["status"] == status


def test_a_tag_that_is_deleted_ends_the_job(db: Db, worker: JobPipeline) -> None:
    ids = make_done(db, 4)
    tag_now(db, ids[:2], "old")
    (tag_id,) = tags.find_ids(db, "old")
    job_ids = [start_reprocessing(db, Filters(tag_ids=(tag_id,)))]
    run(worker)
    assert outcome(db, job_ids[0]) == ("done", 2, 2, 2, [])
    job_ids.append(start_reprocessing(db, Filters(tag_ids=(tag_id,))))
    tag_changes.delete(db, "old", None)
    run(worker)
    assert outcome(db, job_ids[1]) == ("failed", None, 0, 0, ["tag_deleted"])


@pytest.mark.usefixtures("small_parts")
def test_a_search_that_is_too_slow_goes_on_in_windows(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [name for _ in range(3) for store in ("south", "north") for name in make_done(db, 9, store) if store == "north"]
    monkeypatch.setattr(job_images, "_WINDOW", 5)
    job_id = start_reprocessing(db, Filters(store_name="north"), options=LOW)

    def fail(*_: object) -> None:
        raise TooSlow("slow")

    with monkeypatch.context() as patch:
        patch.setattr("pymongo.synchronous.cursor.Cursor.max_time_ms", fail)
        run(worker)
    assert outcome(db, job_id) == ("done", 27, 27, 27, [])
    assert times_queued(db) == dict.fromkeys(wanted, 1)
