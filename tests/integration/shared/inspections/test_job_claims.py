"""Claims of inspections: none is claimed twice, and none stays pending forever."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from shared.errors import NotFound
from shared.inspections import jobs
from shared.queue import pauses
from shared.queues import INSPECTIONS
from shared.storage.mongo import Db
from tests.integration.shared.inspections.requesting import claim, end_leases, finish, make_sources, request
from tests.support.ledger import validate_documents

pytestmark = pytest.mark.slow


def test_the_oldest_requests_are_claimed_first_and_no_more_than_the_size_of_the_claim(db: Db) -> None:
    requested = []
    for source in make_sources(5):
        requested.append(request(db, source)[0].id)
        time.sleep(0.002)  # the database's clock has a resolution of a millisecond
    assert [job.id for job in claim(db, 2)] == requested[:2]
    assert [job.id for job in claim(db)] == requested[2:]


def test_concurrent_inspectors_never_claim_the_same_inspection(db: Db) -> None:
    for source in make_sources(40):
        request(db, source)
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda number: claim(db, 10, f"w{number}"), range(8)))
    ids = [job.id for claim in claimed for job in claim]
    assert len(ids) == len(set(ids)) == 40


def test_an_inspection_that_no_inspector_claims_fails_after_a_while(db: Db) -> None:
    job, _ = request(db)
    assert jobs.fail_overdue(db, 100, 10) == 0
    db.inspections.update_one({"_id": job.id}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 101_000]}}}])
    assert jobs.fail_overdue(db, 100, 10) == 1
    found = jobs.get(db, job.id)
    assert (found.status, found.fresh) == ("failed", True)
    assert found.error is not None
    assert (found.error["status"], found.error["code"]) == (503, "unavailable")
    assert found.error["detail"] == "No inspector was available in time; retry later."
    validate_documents(db)


def backdate(db: Db, collection: str, field: str, seconds: int) -> None:
    db[collection].update_many({}, [{"$set": {field: {"$subtract": ["$$NOW", 1000 * seconds]}}}])


def test_the_time_of_a_pause_does_not_count(db: Db) -> None:
    job, _ = request(db)
    backdate(db, "inspections", "asked_at", 500)
    pauses.pause(db, INSPECTIONS, None)
    assert jobs.fail_overdue(db, 100, 10) == 0
    pauses.resume(db, INSPECTIONS)
    assert jobs.fail_overdue(db, 100, 10) == 0
    validate_documents(db)
    (claimed,) = jobs.claim(db, "w", 1, 30, resumed_at=pauses.read_state(db, INSPECTIONS).resumed_at)
    assert (claimed.id, round(claimed.age_s, -1)) == (job.id, 0)
    jobs.release(db, "w", [claimed.lease])
    backdate(db, "queues", "resumed_at", 101)
    (claimed,) = jobs.claim(db, "w", 1, 30, resumed_at=pauses.read_state(db, INSPECTIONS).resumed_at)
    assert round(claimed.age_s, -1) == 100
    jobs.release(db, "w", [claimed.lease])
    assert jobs.fail_overdue(db, 100, 10) == 1
    assert jobs.get(db, job.id).status == "failed"


def test_a_pause_before_the_request_gives_no_more_time(db: Db) -> None:
    pauses.pause(db, INSPECTIONS, None)
    pauses.resume(db, INSPECTIONS)
    backdate(db, "queues", "resumed_at", 500)
    request(db)
    backdate(db, "inspections", "asked_at", 101)
    assert jobs.fail_overdue(db, 100, 10) == 1


def test_claimed_inspections_are_returned_when_the_database_fails_at_the_next_one(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in make_sources(3):
        request(db, source)
    real, calls = Collection.find_one_and_update, iter([True, False])

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls):
            return real(self, *args, **kwargs)
        raise AutoReconnect("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "find_one_and_update", fail)
        assert len(claim(db)) == 1


def test_a_released_inspection_waits_for_its_delay_and_keeps_its_age(db: Db) -> None:
    job, _ = request(db)
    db.inspections.update_one({"_id": job.id}, [{"$set": {"asked_at": {"$subtract": ["$$NOW", 5000]}}}])
    (held,) = claim(db)
    assert 4.5 < held.age_s < 60
    jobs.release(db, "w", [held.lease], 100)
    assert not jobs.has_claimable(db)
    assert claim(db) == []
    db.inspections.update_one({"_id": job.id}, [{"$set": {"not_before": "$$NOW"}}])
    assert jobs.has_claimable(db)
    assert claim(db)[0].fence == held.fence + 1


def test_a_lost_claim_cannot_finish_fail_or_release(db: Db) -> None:
    request(db)
    (lost,) = claim(db)
    end_leases(db)
    assert jobs.expire_leases(db, 10) == 1
    (heir,) = claim(db, owner="heir")
    assert not finish(db, lost)
    assert not jobs.fail(db, "w", lost, NotFound("no"), failed_s=1, keep_s=1)
    jobs.release(db, "w", [lost.lease])
    assert jobs.get(db, lost.id).status == "processing"
    assert finish(db, heir, owner="heir")


def test_a_renewed_lease_does_not_end(db: Db) -> None:
    request(db)
    (held,) = claim(db)
    end_leases(db)
    assert jobs.renew(db, "w", [held.lease], 30) == {held.lease}
    assert jobs.expire_leases(db, 10) == 0


def test_an_inspection_whose_worker_vanished_three_times_fails(db: Db) -> None:
    job, _ = request(db)
    for number in range(3):
        assert jobs.get(db, job.id).status == "queued"
        claim(db, owner=f"w{number}")
        end_leases(db)
        jobs.expire_leases(db, 100)
    found = jobs.get(db, job.id)
    assert (found.status, found.fresh) == ("failed", True)
    assert found.error is not None
    assert (found.error["code"], found.error["status"]) == ("inspection_lost", 500)
    validate_documents(db)
