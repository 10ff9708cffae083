"""A job tags many images in parts: each once, also if it is cancelled, if its rights are reduced, or if tags change meanwhile."""

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, ExecutionTimeout

from shared.accounts import api_keys
from shared.accounts.permissions import ROLES, Rights
from shared.catalog import bulk_tags, job_images, retired_tags, tag_changes, tags
from shared.catalog.tag_changes import Change
from shared.errors import TooSlow
from shared.jobs import claims, records
from shared.jobs.progress import HeldJob, JobLost, Step
from shared.jobs.records import ALL_JOBS
from shared.ledger.filters import Filters
from shared.storage.mongo import Db
from tests.integration.worker.jobs.tagging import (
    check_counts,
    each,
    make_images,
    owner_in,
    read_job,
    read_tags,
    run,
    start_job,
    tag_now,
)
from tests.support.ledger import utc_now, validate_documents
from worker.jobs.kinds import Kind
from worker.jobs.pipeline import JobPipeline

pytestmark = pytest.mark.usefixtures("small_parts")


def do_one_part(db: Db, owner: str = "worker-b") -> HeldJob:
    """Claim the next job, do one part of it, and release it."""
    claimed = claims.claim(db, owner, 60)
    assert claimed is not None
    step = bulk_tags.do_part(db, HeldJob(owner, claimed))
    assert step.job is not None
    claims.release(db, owner, [step.job.lease])
    return step.job


def test_a_job_tags_the_images_that_match_when_it_is_requested(db: Db, worker: JobPipeline) -> None:
    north, south = make_images(db, 25), make_images(db, 15, "south")
    job_id = start_job(db, "sale", "old", filters=Filters(store_name="north"))
    later = make_images(db, 3)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["total"], job["done"], job["changed"], records.errors_of(job)) == ("done", 25, 25, 25, [])
    assert job["finished_at"] is not None
    assert read_tags(db) == each(north, "sale", "old") | each([*south, *later])
    entries = [entry for image in db.images.find({"_id": {"$in": north}}) for entry in image["tags"]]
    assert {entry["by"] for entry in entries} == {"anna"}
    assert [change["_id"] for change in db.job_changes.find()] == [f"{job_id}:{north[n]}" for n in (9, 19, 24)]
    check_counts(db)
    validate_documents(db)


def test_a_job_adds_and_removes_and_changes_only_images_that_it_concerns(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 20)
    tag_now(db, ids[:3], "old")
    tag_now(db, ids[2:4], "new")
    revisions = {row["_id"]: row.get("revision") or 0 for row in db.images.find()}
    job_id = start_job(db, "NEW", remove=("OLD", "unknown"), ids=tuple(ids[:6]))
    run(worker)
    job = read_job(db, job_id)
    assert (job["done"], job["changed"], job["total"]) == (6, 5, 6)
    assert read_tags(db) == each(ids[:6], "new") | each(ids[6:])
    assert db.tags.count_documents({}) == 2
    changed = {row["_id"]: (row.get("revision") or 0) - revisions[row["_id"]] for row in db.images.find()}
    assert changed == dict.fromkeys(ids, 0) | dict.fromkeys(ids[:6], 1) | {ids[3]: 0}
    check_counts(db)


def test_images_that_no_longer_match_are_skipped(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 30, camera_id="a")
    start_job(db, "sale", filters=Filters(camera_id="a"))
    do_one_part(db)
    db.images.update_many({"_id": {"$in": ids[15:]}}, {"$set": {"camera_id": "b"}})
    run(worker)
    assert read_tags(db) == each(ids[:15], "sale") | each(ids[15:])


def test_a_filter_that_the_job_itself_makes_false_still_reaches_all_images(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 35)
    run_job = [start_job(db, "old")]
    run(worker)
    (tag_id,) = (row["_id"] for row in db.tags.find())
    run_job.append(start_job(db, remove=("old",), filters=Filters(tag_ids=(tag_id,))))
    run(worker)
    assert [read_job(db, job_id)["changed"] for job_id in run_job] == [35, 35]
    assert read_tags(db) == each(ids)
    check_counts(db)


def test_another_worker_continues_a_job_after_the_last_part(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "sale")
    held = do_one_part(db)
    assert (held.cursor, held.document["done"]) == (ids[9], 10)
    claimed = claims.claim(db, "dead", 60)
    assert claimed is not None
    db.jobs.update_one({"_id": job_id}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    claims.expire_leases(db)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"], job["attempts"]) == ("done", 25, 25, 0)
    assert {row.get("revision") for row in db.images.find()} == {1}
    check_counts(db)


def test_a_worker_that_has_lost_the_job_changes_nothing(db: Db, worker: JobPipeline) -> None:
    make_images(db, 12)
    start_job(db, "sale")
    claimed = claims.claim(db, "slow", 60)
    assert claimed is not None
    db.jobs.update_many({}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
    claims.expire_leases(db)
    run(worker)
    before = list(db.images.find())
    with pytest.raises(JobLost):
        bulk_tags.do_part(db, HeldJob("slow", claimed))
    assert list(db.images.find()) == before
    check_counts(db)


def test_a_running_job_that_is_cancelled_ends_after_its_part(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_images(db, 25)
    job_id = start_job(db, "sale")
    real, calls = bulk_tags.do_part, iter([True])

    def cancel_after_the_first(db: Db, job: HeldJob) -> Step:
        step = real(db, job)
        if next(calls, False):
            records.cancel(db, job.id, ALL_JOBS)
        return step

    monkeypatch.setattr("worker.jobs.pipeline.KINDS", {"bulk_tags": Kind(bulk_tags.count, cancel_after_the_first, bulk_tags.has_more)})
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"]) == ("cancelled", 20)
    assert read_tags(db) == each(ids[:20], "sale") | each(ids[20:])


def test_a_job_goes_on_only_within_the_rights_that_remain(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25, "north")
    south = make_images(db, 5, "south")
    rights = Rights(ROLES["tagger"], frozenset({"north", "south"}))
    key, _ = api_keys.create(db, api_keys.NewKey("test", "tagger", rights, None, "operator"))
    job_id = start_job(db, "sale", owner=owner_in(rights.stores, f"key:{key.id}"))
    do_one_part(db)
    db.api_keys.update_one({"_id": key.id}, {"$set": {"stores": ["south", "west"]}})
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["changed"], [error["code"] for error in records.errors_of(job)]) == ("done", 15, ["rights_reduced"])
    assert read_tags(db) == each([*ids[:10], *south], "sale") | each(ids[10:])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_job_that_is_cancelled_when_it_has_done_all_is_done(db: Db, worker: JobPipeline, parts: int) -> None:
    make_images(db, 25)
    job_id = start_job(db, "sale")
    for _ in range(parts):
        do_one_part(db)
    db.jobs.update_one({"_id": job_id}, {"$set": {"cancel_requested": True}})
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"]) == (("cancelled", parts * 10) if parts < 3 else ("done", 25))


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"stores": []}, None])
def test_a_job_fails_when_no_rights_remain(db: Db, worker: JobPipeline, change: dict[str, object] | None) -> None:
    make_images(db, 25)
    rights = Rights(ROLES["tagger"], frozenset({"north"}))
    key, _ = api_keys.create(db, api_keys.NewKey("test", "tagger", rights, None, "operator"))
    job_id = start_job(db, "sale", owner=owner_in(rights.stores, f"key:{key.id}"))
    do_one_part(db)
    if change is None:
        db.api_keys.delete_one({"_id": key.id})
    else:
        db.api_keys.update_one({"_id": key.id}, {"$set": change})
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["changed"], [error["code"] for error in records.errors_of(job)]) == ("failed", 10, ["rights_lost"])


def test_tags_that_are_merged_or_deleted_during_the_job_count_as_what_they_are_then(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    tag_now(db, ids[:2], "target")
    job_id = start_job(db, "merged", "deleted")
    do_one_part(db)
    tag_changes.change(db, "merged", Change(name="target", merge=True), None)
    tag_changes.delete(db, "deleted", None)
    run(worker)
    assert read_job(db, job_id)["changed"] == 25
    assert read_tags(db) == each(ids, "target")


def find_tag(db: Db, name: str) -> Filters:
    return Filters(tag_ids=tags.find_ids(db, name))


@pytest.mark.parametrize("parts", [0, 1])
@pytest.mark.parametrize("clean", [False, True], ids=["ids-remain", "ids-replaced"])
def test_a_job_by_a_tag_reaches_its_images_after_the_tag_was_merged(db: Db, worker: JobPipeline, parts: int, *, clean: bool) -> None:
    ids = make_images(db, 25)
    start_job(db, "old")
    run(worker)
    job_id = start_job(db, "sale", filters=find_tag(db, "old"))
    for _ in range(parts):
        do_one_part(db)
    tag_changes.change(db, "old", Change(name="first", merge=False), None)
    tags.create(db, "target", None)
    tag_changes.change(db, "first", Change(name="target", merge=True), None)
    if clean:  # the sweep gives the images the id of the target
        for tag_id in retired_tags.find(db, 9):
            while retired_tags.clean_images(db, tag_id):
                pass
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["changed"]) == ("done", 25)
    assert read_tags(db) == each(ids, "target", "sale")


@pytest.mark.parametrize("parts", [0, 1])
def test_a_job_by_a_tag_that_was_deleted_fails(db: Db, worker: JobPipeline, parts: int) -> None:
    make_images(db, 25)
    start_job(db, "old")
    run(worker)
    job_id = start_job(db, "sale", filters=find_tag(db, "old"))
    for _ in range(parts):
        do_one_part(db)
    tag_changes.delete(db, "old", None)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["error"]["code"], job["changed"]) == ("failed", "tag_deleted", 10 * parts)


def test_a_job_for_untagged_images_reaches_those_whose_tag_was_deleted_since(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    tag_now(db, ids[:4], "old")
    start_job(db, "sale", filters=Filters(untagged=retired_tags.find_deleted(db)))
    tag_changes.delete(db, "old", None)
    run(worker)
    assert read_tags(db) == each(ids, "sale")


def test_a_job_fails_when_all_its_tags_are_deleted(db: Db, worker: JobPipeline) -> None:
    make_images(db, 25)
    job_id = start_job(db, "sale")
    do_one_part(db)
    tag_changes.delete(db, "sale", None)
    run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["error"]["code"], job["changed"]) == ("failed", "tag_deleted", 10)


def test_images_with_too_many_tags_are_left_and_counted(db: Db, worker: JobPipeline) -> None:
    ids = make_images(db, 25)
    full = [f"tag {n}" for n in range(100)]
    tag_now(db, ids[:3], *full)
    answer = tag_now(db, ids[2:4], "one", remove=())
    assert (answer.matched, answer.changed, answer.full) == (2, 1, 1)
    job_id = start_job(db, "two")
    run(worker)
    job = read_job(db, job_id)
    assert (job["done"], job["changed"]) == (25, 22)
    assert [error["code"] for error in records.errors_of(job)] == ["too_many_image_tags"]
    swapped = start_job(db, "three", remove=("tag 1",))
    run(worker)
    assert read_job(db, swapped)["changed"] == 25
    check_counts(db)


def test_a_search_that_is_too_slow_goes_on_in_windows(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, others = [], []
    for _ in range(4):
        others += make_images(db, 7, "south")
        wanted += make_images(db, 9, "north")
    monkeypatch.setattr(job_images, "_WINDOW", 5)

    def fail(*_: object) -> None:
        raise TooSlow("slow")

    with monkeypatch.context() as patch:
        patch.setattr("pymongo.synchronous.cursor.Cursor.max_time_ms", fail)
        job_id = start_job(db, "sale", filters=Filters(store_name="north"))
        run(worker)
    job = read_job(db, job_id)
    assert (job["status"], job["done"], job["changed"]) == ("done", 36, 36)
    assert read_tags(db) == each(wanted, "sale") | each(others)


def test_an_environment_error_never_fails_a_job(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(db, 25)
    job_id = start_job(db, "sale")

    def fail(*_: object, **__: object) -> None:
        raise AutoReconnect("gone")

    for _ in range(claims.MAX_ATTEMPTS + 1):
        with monkeypatch.context() as patch:
            patch.setattr(Collection, "bulk_write", fail)
            run(worker)
        job = read_job(db, job_id)
        assert (job["status"], job["attempts"], job["done"]) == ("queued", 0, 0)
        assert not claims.has_claimable(db)  # it is released with a delay
        db.jobs.update_one({"_id": job_id}, [{"$set": {"not_before": "$$NOW"}}])
    run(worker)
    assert read_job(db, job_id)["status"] == "done"


def test_the_delay_after_environment_errors_grows_to_a_minute(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(db, 25)
    job_id = start_job(db, "sale")

    def fail(*_: object, **__: object) -> None:
        raise AutoReconnect("gone")

    delays = []
    for _ in range(7):
        with monkeypatch.context() as patch:
            patch.setattr(Collection, "bulk_write", fail)
            run(worker)
        delays.append((read_job(db, job_id)["not_before"] - utc_now()).total_seconds())
        db.jobs.update_one({"_id": job_id}, [{"$set": {"not_before": "$$NOW"}}])
    for delay, longest in zip(delays, (5, 10, 20, 40, 60, 60, 60), strict=True):
        assert 0.4 * longest < delay <= longest, delays
    do_one_part(db)
    assert read_job(db, job_id)["outages"] == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(TooSlow("slow"), "time_limit"), (ExecutionTimeout("slow"), "time_limit"), (ZeroDivisionError(), "internal_error")],
    ids=["slow query", "slow part", "defect"],
)
def test_a_job_whose_parts_always_fail_ends_after_several_attempts(
    db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    make_images(db, 25)
    job_id = start_job(db, "sale")

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("shared.catalog.bulk_edits.plan", fail)
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        run(worker)
        assert read_job(db, job_id)["attempts"] == attempt
        db.jobs.update_one({"_id": job_id}, [{"$set": {"not_before": "$$NOW"}}])
    job = read_job(db, job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", code)
    assert not any(read_tags(db).values())


def test_few_images_that_cannot_be_tagged_in_time_are_tagged_by_a_job(db: Db, worker: JobPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_images(db, 4)

    def be_slow(*_: object) -> None:
        raise ExecutionTimeout("operation exceeded time limit", 50)

    with monkeypatch.context() as patch:
        patch.setattr("shared.catalog.bulk_edits.write", be_slow)
        job_id = start_job(db, "sale", ids=tuple(ids))
    assert not any(read_tags(db).values())
    run(worker)
    assert (read_job(db, job_id)["status"], read_job(db, job_id)["changed"]) == ("done", 4)
    assert read_tags(db) == each(ids, "sale")
    check_counts(db)


def test_jobs_take_turns(db: Db, worker: JobPipeline) -> None:
    make_images(db, 25)
    jobs = [start_job(db, name) for name in ("one", "two")]
    for expected in ([10, 0], [10, 10], [20, 10], [20, 20]):
        worker.run(lambda: None, 1e-3)  # shorter than a part
        assert [read_job(db, job_id)["done"] for job_id in jobs] == expected
