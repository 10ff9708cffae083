"""Contract tests for queues that use ``shared.queue.leases``.

Each queue's test module subclasses ``LeaseContract`` and provides the fixture ``queue``.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Protocol

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from shared.errors import StoreAway
from shared.queue.leases import Lease, LeasedCollection
from shared.storage.mongo import Db, Document
from tests.support.ledger import utc_now, validate_documents


class LeasedQueue(Protocol):
    """Adapts the public functions of one queue, so that the same tests can run against every queue."""

    leases: LeasedCollection

    def add(self, db: Db, count: int) -> None:
        """Add ``count`` documents to the queue."""

    def claim(self, db: Db, owner: str, count: int, lease_s: float = 60) -> list[Lease]:
        """Claim up to ``count`` documents, and return their leases."""

    def renew(self, db: Db, owner: str, leases: Sequence[Lease], lease_s: float = 60) -> set[Lease]:
        """Renew leases, and return those that are still held."""

    def release(self, db: Db, owner: str, leases: Sequence[Lease], *, delay: bool = False) -> None:
        """Release documents. With ``delay``, they can be claimed again only after a second or more."""

    def expire(self, db: Db) -> int:
        """Requeue the documents whose leases have expired, and return their number."""

    def finish(self, db: Db, owner: str, lease: Lease) -> bool:
        """Store a result, and return whether it was accepted."""

    def has_claimable(self, db: Db) -> bool:
        """Return whether a document can be claimed now."""


class LeaseContract:
    def document(self, db: Db, queue: LeasedQueue, lease: Lease) -> Document:
        found = db[queue.leases.name].find_one({"_id": lease.id})
        assert found is not None
        return found

    def field(self, db: Db, queue: LeasedQueue, lease: Lease, name: str) -> Any:
        document = self.document(db, queue, lease)
        return (document[queue.leases.subdocument] if queue.leases.subdocument else document)[name]

    def set_field(self, db: Db, queue: LeasedQueue, lease: Lease, name: str, value: Any) -> None:
        db[queue.leases.name].update_one({"_id": lease.id}, {"$set": {queue.leases.path(name): value}})

    def end_lease(self, db: Db, queue: LeasedQueue, lease: Lease) -> None:
        self.set_field(db, queue, lease, "lease_until", utc_now() - timedelta(minutes=1))

    def test_a_claim_stores_owner_lease_and_the_next_fence(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 3)
        claimed = queue.claim(db, "a", 2)
        assert [lease.fence for lease in claimed] == [1, 1]
        for lease in claimed:
            assert self.document(db, queue, lease)["status"] == "processing"
            assert self.field(db, queue, lease, "owner") == "a"
            left = self.field(db, queue, lease, "lease_until") - utc_now()
            assert timedelta(seconds=30) < left <= timedelta(seconds=61)
        assert queue.leases.lease(self.document(db, queue, claimed[0])) == claimed[0]
        assert len(queue.claim(db, "b", 9)) == 1
        assert not queue.has_claimable(db)
        assert queue.claim(db, "b", 9) == []
        validate_documents(db)

    def test_an_owner_that_looks_like_the_path_of_a_field_is_stored_as_it_is(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 1)
        (lease,) = queue.claim(db, "$status", 1)
        assert self.field(db, queue, lease, "owner") == "$status"
        assert queue.renew(db, "$status", [lease]) == {lease}

    def test_concurrent_workers_never_claim_the_same_document_and_leave_none(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 60)
        claimed: list[Lease] = []
        lock = threading.Lock()

        def claim_all(number: int) -> None:
            while some := queue.claim(db, f"worker {number}", 7):
                with lock:
                    claimed.extend(some)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(claim_all, range(6)))
        # A thread stops when other threads have claimed all documents that it tried. So a few documents can be left.
        claimed += queue.claim(db, "last", 60)
        assert len({lease.id for lease in claimed}) == len(claimed) == 60

    def test_a_lease_ends_unless_it_is_renewed(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 2)
        (kept,) = queue.claim(db, "a", 1, lease_s=0.01)
        assert queue.renew(db, "a", [kept]) == {kept}
        (lost,) = queue.claim(db, "a", 1, lease_s=0.01)
        time.sleep(0.1)
        assert queue.expire(db) == 1
        assert queue.expire(db) == 0
        assert [self.document(db, queue, lease)["status"] for lease in (kept, lost)] == ["processing", "queued"]
        assert self.field(db, queue, lost, "owner") is None
        assert queue.has_claimable(db)
        validate_documents(db)

    def test_a_renewal_returns_the_leases_that_are_still_held(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 2)
        kept, lost = queue.claim(db, "a", 2)
        self.end_lease(db, queue, lost)
        assert queue.expire(db) == 1
        assert queue.renew(db, "a", [kept, lost]) == {kept}
        (again,) = queue.claim(db, "a", 2)
        assert again == Lease(lost.id, 2)
        # The same owner holds the second document, but under a higher fence.
        assert queue.renew(db, "a", [kept, lost]) == {kept}
        assert queue.renew(db, "b", [kept, again]) == set()
        assert queue.renew(db, "a", [kept, lost, again]) == {kept, again}

    def test_the_database_knows_whether_a_lease_is_held(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 1)
        (lease,) = queue.claim(db, "a", 1)
        assert queue.leases.holds(db, "a", lease)
        assert not queue.leases.holds(db, "b", lease)
        assert not queue.leases.holds(db, "a", Lease(lease.id, lease.fence + 1))
        queue.release(db, "a", [lease])
        assert not queue.leases.holds(db, "a", lease)

    def test_a_lost_claim_cannot_store_a_result(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 1)
        (lost,) = queue.claim(db, "a", 1)
        self.end_lease(db, queue, lost)
        queue.expire(db)
        assert not queue.finish(db, "a", lost)
        (held,) = queue.claim(db, "a", 1)
        assert held == Lease(lost.id, lost.fence + 1)
        assert not queue.finish(db, "a", lost)
        assert not queue.finish(db, "b", held)
        assert queue.finish(db, "a", held)
        validate_documents(db)

    def test_a_released_document_is_claimed_again_under_the_next_fence(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 1)
        (lease,) = queue.claim(db, "a", 1)
        queue.release(db, "a", [lease])
        assert self.document(db, queue, lease)["status"] == "queued"
        assert self.field(db, queue, lease, "owner") is None
        assert queue.claim(db, "b", 1) == [Lease(lease.id, 2)]
        queue.release(db, "b", [])
        validate_documents(db)

    def test_a_document_released_with_a_delay_is_not_claimed_before_its_end(self, db: Db, queue: LeasedQueue) -> None:
        queue.add(db, 1)
        (lease,) = queue.claim(db, "a", 1)
        released_at = utc_now()
        queue.release(db, "a", [lease], delay=True)
        assert self.field(db, queue, lease, "not_before") >= released_at + timedelta(seconds=0.9)
        self.set_field(db, queue, lease, "not_before", utc_now() + timedelta(hours=1))
        assert not queue.has_claimable(db)
        assert queue.claim(db, "a", 1) == []
        self.set_field(db, queue, lease, "not_before", utc_now() - timedelta(seconds=1))
        assert queue.has_claimable(db)

    @pytest.mark.parametrize("wrong", ["owner", "fence"])
    def test_only_the_holder_can_release(self, db: Db, queue: LeasedQueue, wrong: str) -> None:
        queue.add(db, 1)
        (lease,) = queue.claim(db, "a", 1)
        owner, fence = ("b", 1) if wrong == "owner" else ("a", 0)
        queue.release(db, owner, [Lease(lease.id, fence)])
        assert self.document(db, queue, lease)["status"] == "processing"

    def test_attempts_that_ended_without_a_result_are_counted(self, db: Db, queue: LeasedQueue) -> None:
        counters = {name for name in (queue.leases.releases, queue.leases.expiries) if name is not None}
        assert counters
        queue.add(db, 2)
        released, expired = queue.claim(db, "a", 2)
        assert {self.field(db, queue, lease, name) for lease in (released, expired) for name in counters} == {0}
        queue.release(db, "a", [released])
        self.end_lease(db, queue, expired)
        queue.expire(db)
        for lease, counter in ((released, queue.leases.releases), (expired, queue.leases.expiries)):
            for name in counters:
                assert self.field(db, queue, lease, name) == (1 if name == counter else 0)

    def test_a_database_that_does_not_answer_is_an_environment_error(
        self, db: Db, queue: LeasedQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        queue.add(db, 2)
        (lease,) = queue.claim(db, "a", 1)

        def fail(*_: Any, **__: Any) -> None:
            raise AutoReconnect("gone")

        for method in ("find", "find_one", "update_many", "find_one_and_update"):
            monkeypatch.setattr(Collection, method, fail)
        for call in (
            lambda: queue.claim(db, "a", 1),
            lambda: queue.renew(db, "a", [lease]),
            lambda: queue.release(db, "a", [lease]),
            lambda: queue.expire(db),
            lambda: queue.has_claimable(db),
            lambda: queue.leases.holds(db, "a", lease),
        ):
            with pytest.raises(StoreAway):
                call()
