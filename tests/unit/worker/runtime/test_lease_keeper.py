"""The lease keeper renews what is held, and nothing else."""

import threading
from collections.abc import Collection, Iterator, Sequence

import pytest

from shared.errors import StoreAway
from shared.queue.leases import Lease
from tests.support.service_stack import wait_until
from worker.runtime.lease_keeper import LeaseKeeper

LEASE_S = 0.15
A, B = Lease("a", 1), Lease("b", 1)


class Database:
    """Renews leases in memory; ``lost`` are those that another worker took over."""

    def __init__(self) -> None:
        self.renewals: list[list[Lease]] = []
        self.lost: set[Lease] = set()
        self.away = False

    def renew(self, leases: Sequence[Lease]) -> set[Lease]:
        self.renewals.append(list(leases))
        if self.away:
            raise StoreAway("away")
        return set(leases) - self.lost

    def wait_for_renewals(self, count: int = 2) -> list[Lease]:
        """Wait for renewals that start after this call, and return the leases of the last one."""
        target = len(self.renewals) + count
        wait_until(lambda: len(self.renewals) >= target, 60, "the renewals")
        return self.renewals[-1]


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def keeper(database: Database) -> Iterator[LeaseKeeper]:
    keeper = LeaseKeeper(database.renew, LEASE_S)
    yield keeper
    keeper.stop()


def test_what_is_held_is_renewed_until_it_is_dropped(database: Database, keeper: LeaseKeeper) -> None:
    keeper.hold([A, B], 600)
    assert database.wait_for_renewals() == [A, B]
    keeper.drop([A])
    assert database.wait_for_renewals() == [B]
    assert [keeper.holds(lease) for lease in (A, B)] == [False, True]
    assert keeper.leases() == [B]


def test_a_lost_lease_is_no_longer_held_nor_renewed(database: Database, keeper: LeaseKeeper) -> None:
    keeper.hold([A, B], 600)
    database.lost = {A}
    wait_until(lambda: not keeper.holds(A), 60, "the loss")
    assert database.wait_for_renewals() == [B]
    assert keeper.holds(B)
    assert keeper.leases() == [A, B]  # its work may still be running


def test_leases_count_as_held_while_the_database_is_away(database: Database, keeper: LeaseKeeper) -> None:
    database.away = True
    keeper.hold([A], 600)
    assert database.wait_for_renewals() == [A]
    assert keeper.holds(A)


def test_after_its_time_limit_a_lease_is_not_renewed(database: Database, keeper: LeaseKeeper) -> None:
    keeper.hold([A], 0)
    keeper.hold([B], 600)
    assert database.wait_for_renewals() == [B]
    assert all(A not in leases for leases in database.renewals)
    assert keeper.holds(A)  # until another worker may have it, its results are accepted


def test_a_document_claimed_again_is_held_under_its_new_fence_alone(database: Database, keeper: LeaseKeeper) -> None:
    again = Lease("a", 2)
    keeper.hold([A], 600)
    keeper.hold([again], 600)
    assert [keeper.holds(lease) for lease in (A, again)] == [False, True]
    keeper.drop([A])
    assert keeper.holds(again)
    assert database.wait_for_renewals() == [again]


class Overruns:
    """Records the leases that are reported."""

    def __init__(self) -> None:
        self.leases: set[Lease] = set()

    def add(self, leases: Collection[Lease]) -> None:
        self.leases |= set(leases)


def test_work_that_exceeds_its_time_limit_is_reported(database: Database) -> None:
    overruns = Overruns()
    keeper = LeaseKeeper(database.renew, LEASE_S, overruns.add)
    try:
        keeper.hold([A], 600)
        keeper.hold([B], 0)
        keeper.drop([B])
        database.wait_for_renewals()
        assert not overruns.leases
        keeper.hold([B], 0)
        wait_until(lambda: overruns.leases, 60, "the report")
        assert overruns.leases == {B}
    finally:
        keeper.stop()


def test_lost_work_that_exceeds_its_time_limit_is_reported(database: Database) -> None:
    overruns = Overruns()
    keeper = LeaseKeeper(database.renew, LEASE_S, overruns.add)
    database.lost = {A}
    try:
        keeper.hold([A], 2 * LEASE_S)
        wait_until(lambda: overruns.leases, 60, "the report")
        assert keeper.leases() == [A]
    finally:
        keeper.stop()


def test_a_limit_counts_from_when_it_is_set_and_work_without_a_limit_is_renewed(database: Database) -> None:
    overruns = Overruns()
    keeper = LeaseKeeper(database.renew, LEASE_S, overruns.add)
    try:
        keeper.hold([A], 600)
        keeper.limit(A, None)
        assert database.wait_for_renewals(3) == [A]
        for _ in range(4):
            keeper.limit(A, 2 * LEASE_S)  # the limits together are longer than each of them
            assert database.wait_for_renewals(1) == [A]
        assert not overruns.leases
        keeper.limit(A, 0)
        wait_until(lambda: overruns.leases == {A}, 60, "the report")
        keeper.drop([A])
        keeper.limit(A, 600)  # a dropped lease stays dropped
        assert keeper.leases() == []
    finally:
        keeper.stop()


def test_a_stopped_keeper_renews_nothing(database: Database, keeper: LeaseKeeper) -> None:
    keeper.hold([A], 600)
    database.wait_for_renewals(1)
    keeper.stop()
    threads = [thread for thread in threading.enumerate() if thread.name == "lease"]
    for thread in threads:
        thread.join(60)
    renewals = len(database.renewals)
    assert not any(thread.is_alive() for thread in threads)
    assert len(database.renewals) == renewals


def test_the_keeper_tells_whether_anything_is_held(database: Database) -> None:
    told: list[bool] = []
    keeper = LeaseKeeper(database.renew, LEASE_S, set_busy=told.append)
    try:
        keeper.hold([], 600)
        keeper.hold([A, B], 600)
        keeper.drop([B])
        keeper.drop([A])
    finally:
        keeper.stop()
    assert told == [False, True, True, False]
