"""Whatever dies during a part of a job that processes images again: each image is queued once, and each one is counted."""

import threading
import time

import pytest

from shared import failpoints, settings
from shared.bootstrap import open_stores
from shared.catalog import bulk_reprocessing
from shared.errors import StoreAway
from shared.jobs import claims, progress, records
from shared.jobs.progress import HeldJob, JobLost
from shared.jobs.records import ALL_JOBS
from shared.ledger import audit, cancellation, reprocessing
from shared.ledger import claims as image_claims
from shared.ledger.reprocessing import Options
from shared.storage.migrations import update_end
from shared.storage.mongo import Db
from tests.integration.worker.jobs.open_parts import at, die_in_part, expire
from tests.integration.worker.jobs.reprocessing import (
    complete_marks,
    fail_all,
    make_done,
    start_reprocessing,
    times_queued,
)
from tests.integration.worker.jobs.tagging import make_images, read_job, run
from tests.support.ledger import commit_new_batch, process_all, validate_documents
from worker.jobs.pipeline import JobPipeline
from worker.sweep import jobs as job_sweep

POINTS = (
    "15-reprocessing-part-chosen", "13-reprocessing-marked", "13-reprocessing-queued", "13-reprocessing-unmarked", "15-reprocessing-part-queued",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(bulk_reprocessing, "_PART", 10)
    yield
    failpoints.install(None)


def check(db: Db, job_id: str, ids: list[str]) -> None:
    """Check that the job has queued each image once, and says so, and that all are processed."""
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"], records.errors_of(job)) == ("done", len(ids), len(ids), [])
    assert times_queued(db, job_id) == dict.fromkeys(ids, 1)
    assert db.batches.count_documents({"reprocessing": {"$exists": True}}) == 0
    assert db.jobs.count_documents({"$or": [{"chosen": {"$exists": True}}, {"open_change": {"$exists": True}}]}) == 0
    process_all(db)
    assert audit.balance(db)["done"] == len(ids)
    validate_documents(db)


@pytest.mark.parametrize("meanwhile", ["nothing", "processed", "swept", "swept-and-processed"])
@pytest.mark.parametrize("point", POINTS)
def test_a_part_whose_worker_has_died_queues_each_image_once(db: Db, worker: JobPipeline, point: str, meanwhile: str) -> None:
    ids = make_done(db, 25)
    job_id = start_reprocessing(db)
    die_in_part(db, point, bulk_reprocessing.do_part)
    if "swept" in meanwhile:
        complete_marks(db)
    if "processed" in meanwhile:
        process_all(db)
    run(worker)
    check(db, job_id, ids)


@pytest.mark.parametrize("point", POINTS)
def test_workers_that_die_again_and_again_in_the_same_part_queue_each_image_once(db: Db, worker: JobPipeline, point: str) -> None:
    ids = make_done(db, 12)
    job_id = start_reprocessing(db)
    first, *others = POINTS[POINTS.index(point) :][: claims.MAX_ATTEMPTS - 1]
    die_in_part(db, first, bulk_reprocessing.do_part)
    process_all(db)
    for later in others:
        try:
            die_in_part(db, later, bulk_reprocessing.do_part)
        except pytest.fail.Exception:  # an earlier worker has come further, so this one did not reach the point
            db.jobs.update_many({"status": "processing"}, {"$set": {"status": "queued", "owner": None}})
        process_all(db)
    run(worker)
    check(db, job_id, ids)


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_was_frozen_and_lost_the_job_queues_nothing_twice(db: Db, worker: JobPipeline, point: str) -> None:
    ids = make_done(db, 25)
    job_id = start_reprocessing(db)
    claimed = claims.claim(db, "frozen", 60)
    assert claimed is not None

    def let_another_do_it() -> None:
        expire(db)
        run(worker)
        process_all(db)

    at(point, let_another_do_it)
    with pytest.raises(JobLost):
        bulk_reprocessing.do_part(db, HeldJob("frozen", claimed))
    check(db, job_id, ids)


def end_and_settle(db: Db, job_id: str) -> None:
    """End a job whose worker has lost it, and count what its open part has done."""
    expire(db)
    assert records.cancel(db, job_id, ALL_JOBS)["status"] == "cancelled"
    assert bulk_reprocessing.settle_ended(db, job_id)


def check_nothing_queued(db: Db, job_id: str) -> None:
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"], times_queued(db)) == ("cancelled", 0, 0, {})
    assert db.batches.count_documents({"open": True}) == 0


def test_a_worker_that_was_frozen_until_the_job_has_ended_queues_nothing(db: Db) -> None:
    make_done(db, 25)
    job_id = start_reprocessing(db)
    claimed = claims.claim(db, "frozen", 60)
    assert claimed is not None
    at(POINTS[0], lambda: end_and_settle(db, job_id))
    with pytest.raises(JobLost):
        bulk_reprocessing.do_part(db, HeldJob("frozen", claimed))
    check_nothing_queued(db, job_id)


def test_a_worker_that_was_frozen_after_the_check_of_its_lease_queues_nothing(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    make_done(db, 25)
    job_id = start_reprocessing(db)
    claimed = claims.claim(db, "frozen", 60)
    assert claimed is not None
    check_update = reprocessing.check_update

    def freeze(db: Db) -> None:
        check_update(db)
        time.sleep(1.1)  # the lease ends
        others = threading.Thread(target=end_and_settle, args=(db, job_id))  # they have time limits of their own
        others.start()
        others.join()

    def prepare() -> None:
        db.jobs.update_one({"_id": job_id}, [{"$set": {"lease_until": {"$add": ["$$NOW", 1000]}}}])
        monkeypatch.setattr(reprocessing, "check_update", freeze)

    at(POINTS[0], prepare)
    with pytest.raises(StoreAway):
        bulk_reprocessing.do_part(db, HeldJob("frozen", claimed))
    check_nothing_queued(db, job_id)


def set_clock_back(db: Db) -> None:
    """Let it seem that the images were queued by a primary whose clock is an hour behind."""
    db.images.update_many({}, [{"$set": {"work.queued_at": {"$subtract": ["$work.queued_at", 3_600_000]}}}])


def test_what_a_job_has_queued_counts_whatever_the_clock_of_the_primary_says(db: Db, worker: JobPipeline) -> None:
    ids = make_done(db, 10)
    job_id = start_reprocessing(db)
    at("15-reprocessing-part-queued", lambda: set_clock_back(db))
    run(worker)
    check(db, job_id, ids)


def test_a_repeated_part_queues_no_image_that_others_have_queued_after_the_job(db: Db, worker: JobPipeline) -> None:
    ids = make_done(db, 10)
    job_id = start_reprocessing(db)
    die_in_part(db, "15-reprocessing-part-queued", bulk_reprocessing.do_part)
    process_all(db)
    assert reprocessing.reprocess_images(db, ids[:4], {}, Options(by="berta"), None) == {ids[0][:32]: 4}
    process_all(db)
    set_clock_back(db)
    run(worker)
    assert sum(times_queued(db).values()) == 14
    check(db, job_id, ids)


def test_of_the_images_that_somebody_else_has_queued_since_the_part_began_those_that_wait_are_left(db: Db, worker: JobPipeline) -> None:
    ids = make_done(db, 10)
    job_id = start_reprocessing(db)
    die_in_part(db, POINTS[0], bulk_reprocessing.do_part)
    for chosen in (ids[:2], ids[2:4]):
        assert reprocessing.reprocess_images(db, chosen, {}, Options(by="berta"), None) == {ids[0][:32]: 2}
        if chosen == ids[:2]:
            process_all(db)
    run(worker)
    job = read_job(db, job_id)
    assert (job["done"], job["changed"], job["omitted"]) == (10, 8, {"not_finished": 2})
    assert times_queued(db, job_id) == dict.fromkeys([*ids[:2], *ids[4:]], 1)


def test_images_that_no_longer_meet_the_condition_are_left_and_named_by_no_error(db: Db, worker: JobPipeline) -> None:
    make_images(db, 5)
    failed = fail_all(db)
    job_id = start_reprocessing(db, only="failed")
    die_in_part(db, POINTS[0], bulk_reprocessing.do_part)
    assert reprocessing.reprocess_images(db, failed[:2], {}, Options(by="berta"), None) == {failed[0][:32]: 2}
    process_all(db)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"], records.errors_of(job)) == ("done", 5, 3, [])


def test_finished_images_whose_batch_is_being_cancelled_or_changed_by_others_have_a_code_of_their_own(db: Db, worker: JobPipeline) -> None:
    make_done(db, 3)
    cancelled = commit_new_batch(db, 4)
    assert len(image_claims.claim(db, "slow", 1, 60).images) == 1
    assert cancellation.cancel(db, cancelled, None).running == 1
    job_id = start_reprocessing(db)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reprocessing, "_mark", lambda *_: [])  # other requests always open the batches first
        run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"], job["omitted"]) == ("done", 7, 0, {"batch_busy": 6, "not_finished": 1})
    assert {error["code"] for error in records.errors_of(job)} == {"batch_busy", "not_finished"}
    assert times_queued(db) == {}


@pytest.mark.parametrize("is_open", [False, True], ids=["between-parts", "in-a-part"])
def test_a_job_waits_until_an_update_of_the_service_is_finished(db: Db, worker: JobPipeline, *, is_open: bool) -> None:
    ids = make_done(db, 15)
    job_id = start_reprocessing(db)
    if is_open:
        die_in_part(db, POINTS[0], bulk_reprocessing.do_part)
    update_end.record_begin(db)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["attempts"], times_queued(db)) == ("queued", 0, int(is_open), {})
    update_end.record_end(db)
    db.jobs.update_one({"_id": job_id}, [{"$set": {"not_before": "$$NOW"}}])
    run(worker)
    check(db, job_id, ids)


@pytest.mark.parametrize(("point", "queued"), [(POINTS[0], 0), *((point, 10) for point in POINTS[1:])])
def test_the_sweep_counts_what_a_job_has_queued_that_ends_with_an_open_part(
    db: Db, mongo: settings.Mongo, redis_url: str, point: str, queued: int
) -> None:
    make_done(db, 25)
    job_id = start_reprocessing(db)
    die_in_part(db, point, bulk_reprocessing.do_part)
    assert records.cancel(db, job_id, ALL_JOBS)["status"] == "cancelled"
    assert [job["_id"] for job in progress.find_unsettled(db, 5)] == [job_id]
    stores = open_stores(settings.Settings(mongo=mongo, redis=settings.Redis(url=redis_url)), app="test", db=db)
    assert job_sweep.repair(stores)
    assert not job_sweep.repair(stores)
    for publisher in stores.wakeups.values():
        publisher.close()
    assert not progress.find_unsettled(db, 5)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"], len(times_queued(db, job_id))) == ("cancelled", queued, queued, queued)
    validate_documents(db)
