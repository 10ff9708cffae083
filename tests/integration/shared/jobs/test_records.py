"""Jobs are created, listed, and cancelled by the account that owns them."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from shared.allowed_stores import AllowedStores, stores_to_list
from shared.errors import Conflict, Forbidden, NotFound
from shared.ids import smallest_batch_id
from shared.jobs import claims, progress, records, undo
from shared.jobs.progress import HeldJob
from shared.jobs.records import ALL_JOBS, JobAccess, PendingJobs
from shared.storage.mongo import Db, Document
from tests.integration.shared.jobs.requesting import owner_of, request_job
from tests.support.ledger import utc_now, validate_documents

OF_A = JobAccess("user:a", None)


def claim(db: Db) -> HeldJob:
    claimed = claims.claim(db, "worker", 60)
    assert claimed is not None
    return HeldJob("worker", claimed)


def end(db: Db, status: str = "done") -> Document:
    held = claim(db)
    assert progress.finish(db, held, status)
    return records.get(db, held.id, ALL_JOBS)


def test_a_new_job_is_queued_and_its_parameters_are_not_shown(db: Db) -> None:
    made = request_job(db, "user:a", ids=["1"])
    found = records.get(db, made["_id"], OF_A)
    assert found == {name: value for name, value in made.items() if name != "params"}
    assert (found["status"], found["done"], found["changed"], found["finished_at"]) == ("queued", 0, 0, None)
    assert records.undo_until(found) is None
    validate_documents(db)


def test_an_account_sees_its_own_jobs_newest_first_and_an_administrator_sees_all(db: Db) -> None:
    made = [request_job(db, account)["_id"] for account in ("user:a", "user:b", "user:a", "user:a")]
    assert [job["_id"] for job in records.list_page(db, OF_A, None, 9)] == [made[3], made[2], made[0]]
    assert [job["_id"] for job in records.list_page(db, OF_A, made[3], 1)] == [made[2]]
    assert [job["_id"] for job in records.list_page(db, ALL_JOBS, None, 9)] == made[::-1]
    for call in (records.get, records.cancel):
        with pytest.raises(NotFound):
            call(db, made[1], OF_A)
    with pytest.raises(NotFound):
        undo.request(db, made[1], OF_A, owner_of("user:a"))


@pytest.mark.parametrize("of_job", [None, frozenset({"north", "south"}), frozenset({"north"}), frozenset()], ids=["all", "both", "north", "none"])
@pytest.mark.parametrize("stores", [None, frozenset({"north", "south"}), frozenset({"north"}), frozenset({"west"})], ids=["all", "both", "north", "west"])
def test_only_jobs_within_the_stores_of_a_reader_are_seen_cancelled_and_undone(db: Db, of_job: AllowedStores, stores: AllowedStores) -> None:
    is_within = stores is None or (of_job is not None and of_job <= stores)
    access = JobAccess("user:a", stores)
    job_id = request_job(db, "user:a", stores=of_job)["_id"]
    assert [job["_id"] for job in records.list_page(db, access, None, 9)] == [job_id] * is_within
    if is_within:
        assert records.get(db, job_id, access)["_id"] == job_id
        assert records.cancel(db, job_id, access)["status"] == "cancelled"
        made = undo.request(db, job_id, access, owner_of("user:a", stores=stores))
        assert made["stores"] == stores_to_list(of_job)
        return
    with pytest.raises(NotFound):
        records.get(db, job_id, access)
    with pytest.raises(Forbidden) as refused:
        records.cancel(db, job_id, access)
    assert refused.value.code == "foreign_store"
    with pytest.raises(Forbidden) as refused:
        undo.request(db, job_id, access, owner_of("user:a", stores=stores))
    assert refused.value.code == "foreign_store"
    with pytest.raises(NotFound):  # nobody learns that a job of another account exists
        records.cancel(db, job_id, JobAccess("user:b", stores))
    assert records.get(db, job_id, ALL_JOBS)["status"] == "queued"


def die_often(db: Db, _: str) -> None:
    for _attempt in range(claims.MAX_ATTEMPTS):
        claim(db)
        db.jobs.update_many({}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
        claims.expire_leases(db)


def fail_often(db: Db, _: str) -> None:
    for _attempt in range(claims.MAX_ATTEMPTS):
        claims.release_after_failure(db, "worker", claim(db).lease, 0, {"code": "internal_error", "detail": ""})


def cancel(db: Db, job_id: str) -> None:
    records.cancel(db, job_id, ALL_JOBS)


@pytest.mark.parametrize("kind", ["bulk_tags", "undo"])
@pytest.mark.parametrize("end_job", [die_often, fail_often, cancel, lambda db, _: end(db)], ids=["died", "failed", "cancelled", "done"])
def test_what_a_job_has_changed_is_kept_a_day_however_it_ends(db: Db, end_job: Callable[[Db, str], object], kind: str) -> None:
    job_id = request_job(db)["_id"]
    db.job_changes.insert_one({"_id": f"{job_id}:1", "job": job_id, "expires_at": utc_now() + timedelta(days=30)})
    if kind == "undo":
        end(db)
        end_job(db, undo.request(db, job_id, ALL_JOBS, owner_of())["_id"])
    else:
        end_job(db, job_id)
    (change,) = db.job_changes.find()
    assert timedelta(hours=24) < change["expires_at"] - utc_now() < timedelta(hours=26)


def test_what_a_job_has_changed_is_kept_while_it_goes_on(db: Db) -> None:
    job_id = request_job(db)["_id"]
    db.job_changes.insert_one({"_id": f"{job_id}:1", "job": job_id, "expires_at": utc_now() + timedelta(days=30)})
    claims.release_after_failure(db, "worker", claim(db).lease, 0, {"code": "internal_error", "detail": ""})
    claim(db)
    records.cancel(db, job_id, ALL_JOBS)
    (change,) = db.job_changes.find()
    assert change["expires_at"] - utc_now() > timedelta(days=29)


def test_the_jobs_that_have_not_ended_are_counted_from_an_index_alone(db: Db) -> None:
    assert records.read_pending(db) == PendingJobs(0, 0, 0.0)
    for _ in range(3):
        request_job(db)
    end(db)
    claim(db)
    oldest_id = f"{smallest_batch_id(utc_now() - timedelta(hours=1))[:12]}{'1' * 20}"
    left = db.jobs.find_one({"status": "queued"})
    assert left is not None
    db.jobs.insert_one(left | {"_id": oldest_id})
    db.jobs.insert_one(left | {"_id": "0" * 32, "status": "done"})
    db.command("profile", 2)
    pending = records.read_pending(db)
    db.command("profile", 0)
    (row,) = db["system.profile"].find({"ns": f"{db.name}.jobs"})
    assert (pending.queued, pending.running) == (2, 1)
    assert 3600 <= pending.oldest_queued_s < 4200
    assert (row["docsExamined"], row["keysExamined"] <= 5) == (0, True)


def test_an_account_can_have_only_so_many_unfinished_jobs(db: Db) -> None:
    for _ in range(records.MAX_UNFINISHED):
        request_job(db, "user:a")
    with pytest.raises(Conflict) as refused:
        request_job(db, "user:a")
    assert refused.value.code == "too_many_jobs"
    request_job(db, "user:b")
    end(db)
    request_job(db, "user:a")


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_by_its_worker(db: Db) -> None:
    queued = request_job(db)["_id"]
    cancelled = records.cancel(db, queued, ALL_JOBS)
    assert (cancelled["status"], records.undo_until(cancelled)) == ("cancelled", None)
    assert db.jobs.find_one({"_id": queued})["expires_at"] > utc_now() + timedelta(days=29)  # type: ignore[index]
    running = request_job(db)["_id"]
    held = claim(db)
    assert held.id == running
    asked = records.cancel(db, running, ALL_JOBS)
    assert (asked["status"], asked["cancel_requested"], asked["finished_at"]) == ("processing", True, None)
    assert records.cancel(db, running, ALL_JOBS)["status"] == "processing"
    assert progress.finish(db, held, "cancelled")
    with pytest.raises(Conflict) as refused:
        records.cancel(db, running, ALL_JOBS)
    assert refused.value.code == "job_finished"
    validate_documents(db)


def test_a_job_whose_workers_die_before_each_part_fails(db: Db) -> None:
    job_id = request_job(db)["_id"]
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        assert claim(db).document["attempts"] == attempt - 1
        db.jobs.update_one({"_id": job_id}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])
        assert claims.expire_leases(db) == 1
    found = records.get(db, job_id, ALL_JOBS)
    assert (found["status"], found["error"]["code"], found["owner"]) == ("failed", "worker_died", None)
    assert found["finished_at"] is not None
    validate_documents(db)


def test_a_job_fails_when_its_parts_fail_several_times_in_succession(db: Db) -> None:
    job_id = request_job(db)["_id"]
    error = {"code": "internal_error", "detail": "$not an expression"}
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        claims.release_after_failure(db, "worker", claim(db).lease, 0, error)
        found = records.get(db, job_id, ALL_JOBS)
        assert found["attempts"] == attempt
        assert found["status"] == ("failed" if attempt == claims.MAX_ATTEMPTS else "queued")
    assert found["error"] == error
    assert found["expires_at"] > utc_now() + timedelta(days=29)
    validate_documents(db)


def test_a_job_can_be_undone_once_and_only_for_a_day_after_its_end(db: Db) -> None:
    job_id = request_job(db)["_id"]
    with pytest.raises(Conflict) as refused:
        undo.request(db, job_id, ALL_JOBS, owner_of())
    assert refused.value.code == "job_unfinished"
    assert records.undo_until(end(db)) is None  # it has changed nothing
    db.jobs.update_one({"_id": job_id}, {"$set": {"changed": 1}})
    assert records.undo_until(records.get(db, job_id, ALL_JOBS)) is not None
    db.jobs.update_one({"_id": job_id}, {"$set": {"finished_at": utc_now() - timedelta(hours=25)}})
    assert records.undo_until(records.get(db, job_id, ALL_JOBS)) is None
    with pytest.raises(Conflict) as refused:
        undo.request(db, job_id, ALL_JOBS, owner_of())
    assert refused.value.code == "not_undoable"
    db.jobs.update_one({"_id": job_id}, {"$set": {"finished_at": utc_now() - timedelta(hours=23)}})
    made = undo.request(db, job_id, ALL_JOBS, owner_of())
    assert (made["kind"], records.get(db, job_id, ALL_JOBS)["undone_by"]) == ("undo", made["_id"])
    with pytest.raises(Conflict) as refused:
        undo.request(db, job_id, ALL_JOBS, owner_of())
    assert refused.value.code == "already_undone"
    assert records.undo_until(end(db)) is None
    with pytest.raises(Conflict) as refused:
        undo.request(db, made["_id"], ALL_JOBS, owner_of())
    assert refused.value.code == "not_undoable"
    validate_documents(db)


def test_an_undo_that_was_cancelled_can_be_requested_again(db: Db) -> None:
    job_id = request_job(db)["_id"]
    end(db)
    first = undo.request(db, job_id, ALL_JOBS, owner_of())["_id"]
    records.cancel(db, first, ALL_JOBS)
    second = undo.request(db, job_id, ALL_JOBS, owner_of())["_id"]
    assert records.get(db, job_id, ALL_JOBS)["undone_by"] == second
