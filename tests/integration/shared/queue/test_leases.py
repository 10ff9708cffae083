"""The lease protocol, through each of its users and by itself."""

from collections.abc import Sequence

import pytest

from shared.inspections import jobs, results
from shared.inspections.jobs import Job, Validators
from shared.inspections.recipes import Describe, Source
from shared.jobs import claims as job_claims
from shared.jobs import progress
from shared.ledger import claims
from shared.ledger.results import Result, finish
from shared.queue.leases import Lease, LeasedCollection
from shared.storage.mongo import Db
from tests.contracts.leases import LeaseContract, LeasedQueue
from tests.integration.shared.jobs.requesting import request_job
from tests.support.ledger import claimed_fences, commit_new_batch


class ImageQueue:
    leases = claims.LEASES

    def add(self, db: Db, count: int) -> None:
        commit_new_batch(db, count)

    def claim(self, db: Db, owner: str, count: int, lease_s: float = 60) -> list[Lease]:
        return claimed_fences(claims.claim(db, owner, count, lease_s))

    def renew(self, db: Db, owner: str, leases: Sequence[Lease], lease_s: float = 60) -> set[Lease]:
        return claims.renew(db, owner, leases, lease_s)

    def release(self, db: Db, owner: str, leases: Sequence[Lease], *, delay: bool = False) -> None:
        claims.release(db, owner, leases, "test", delay=delay)

    def expire(self, db: Db) -> int:
        return claims.expire_leases(db)

    def finish(self, db: Db, owner: str, lease: Lease) -> bool:
        return finish(db, owner, [Result(lease.id, lease.fence, {"width": 1, "height": 1})]) == {lease.id}

    def has_claimable(self, db: Db) -> bool:
        return claims.has_claimable(db)


class InspectionQueue:
    leases = jobs.LEASES

    def __init__(self) -> None:
        self._jobs: dict[Lease, Job] = {}

    def add(self, db: Db, count: int) -> None:
        for number in range(count):
            jobs.request(db, Source(url=f"http://example.org/{number}.jpg"), Describe(), "client", keep_s=100)

    def claim(self, db: Db, owner: str, count: int, lease_s: float = 60) -> list[Lease]:
        claimed = {job.lease: job for job in jobs.claim(db, owner, count, lease_s)}
        self._jobs |= claimed
        return list(claimed)

    def renew(self, db: Db, owner: str, leases: Sequence[Lease], lease_s: float = 60) -> set[Lease]:
        return jobs.renew(db, owner, leases, lease_s)

    def release(self, db: Db, owner: str, leases: Sequence[Lease], *, delay: bool = False) -> None:
        jobs.release(db, owner, leases, delay_s=1 if delay else 0)

    def expire(self, db: Db) -> int:
        return jobs.expire_leases(db, failed_s=10)

    def finish(self, db: Db, owner: str, lease: Lease) -> bool:
        job = self._jobs[lease]
        result = results.result_id("a" * 64, job.recipe, None)
        return jobs.finish(db, owner, job, result, Validators("a" * 64), fresh_s=100, keep_s=100)

    def has_claimable(self, db: Db) -> bool:
        return jobs.has_claimable(db)


class JobQueue:
    leases = job_claims.LEASES

    def add(self, db: Db, count: int) -> None:
        for number in range(count):
            request_job(db, account=f"user:{number}")

    def claim(self, db: Db, owner: str, count: int, lease_s: float = 60) -> list[Lease]:
        claimed = (job_claims.claim(db, owner, lease_s) for _ in range(count))
        return [self.leases.lease(document) for document in claimed if document is not None]

    def renew(self, db: Db, owner: str, leases: Sequence[Lease], lease_s: float = 60) -> set[Lease]:
        return job_claims.renew(db, owner, leases, lease_s)

    def release(self, db: Db, owner: str, leases: Sequence[Lease], *, delay: bool = False) -> None:
        job_claims.release(db, owner, leases, delay_s=1 if delay else 0)

    def expire(self, db: Db) -> int:
        return job_claims.expire_leases(db)

    def finish(self, db: Db, owner: str, lease: Lease) -> bool:
        document = {"_id": lease.id, "fence": lease.fence, "params": {}}
        return progress.finish(db, progress.HeldJob(owner, document), "done")

    def has_claimable(self, db: Db) -> bool:
        return job_claims.has_claimable(db)


class TestImages(LeaseContract):
    @pytest.fixture
    def queue(self) -> LeasedQueue:
        return ImageQueue()


class TestInspections(LeaseContract):
    @pytest.fixture
    def queue(self) -> LeasedQueue:
        return InspectionQueue()


class TestJobs(LeaseContract):
    @pytest.fixture
    def queue(self) -> LeasedQueue:
        return JobQueue()


DELIVERIES = LeasedCollection("deliveries", releases="attempts", expiries="attempts")


def add_delivery(db: Db, name: str = "one") -> None:
    db.deliveries.insert_one({"_id": name, "status": "queued", "owner": None, "fence": 0, "attempts": 0})
    db.deliveries.update_one({"_id": name}, [{"$set": {"not_before": "$$NOW"}}])


def end_delivery_leases(db: Db) -> None:
    db.deliveries.update_many({}, [{"$set": {"lease_until": {"$subtract": ["$$NOW", 1]}}}])


def claim_delivery(db: Db, name: str = "one") -> Lease:
    claimed = DELIVERIES.claim_one(db, name, "a", 60)
    assert claimed is not None
    return DELIVERIES.lease(claimed)


def test_a_document_ends_when_its_attempts_are_exhausted(db: Db) -> None:
    add_delivery(db)
    DELIVERIES.release(db, "a", [claim_delivery(db)])
    for attempts, status in ((2, "queued"), (3, "failed")):
        claim_delivery(db)
        end_delivery_leases(db)
        assert DELIVERIES.expire(db, max_expiries=3, exhausted={"status": "failed", "reason": "lost"}) == 1
        (found,) = db.deliveries.find()
        assert (found["attempts"], found["status"], found["owner"]) == (attempts, status, None)
    assert found["reason"] == "lost"
    assert DELIVERIES.claim_one(db, "one", "a", 60) is None


def test_an_expiry_among_some_documents_leaves_the_others(db: Db) -> None:
    for name in ("one", "two"):
        add_delivery(db, name)
        claim_delivery(db, name)
    end_delivery_leases(db)
    assert DELIVERIES.expire(db, among={"_id": "two"}, change={"late": True}) == 1
    assert [(row["_id"], row["status"]) for row in db.deliveries.find({"late": True})] == [("two", "queued")]
    assert db.deliveries.count_documents({"status": "processing"}) == 1


def test_the_guard_of_one_lease_matches_its_holder_alone(db: Db) -> None:
    add_delivery(db)
    lease = claim_delivery(db)
    assert db.deliveries.count_documents(DELIVERIES.guard("a", lease)) == 1
    for owner, other in (("b", lease), ("a", Lease("one", 2)), ("a", Lease("two", 1))):
        assert db.deliveries.count_documents(DELIVERIES.guard(owner, other)) == 0


def test_several_documents_are_claimed_at_once_only_where_a_token_is_stored(db: Db) -> None:
    with pytest.raises(TypeError, match="deliveries"):
        DELIVERIES.claim_many(db, ["one"], "a", 60)
