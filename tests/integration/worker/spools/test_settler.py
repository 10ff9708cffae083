"""Tests of the thread that settles spools in a worker: it neither delays nor ends the processing of images."""

import logging
import threading
from collections.abc import Collection, Iterator

import pytest

from shared.bootstrap import Stores, open_stores
from shared.errors import StoreAway
from shared.settings import Settings
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.service_stack import wait_until
from worker.spools import settler as module
from worker.spools.settler import Settler

pytestmark = pytest.mark.slow


class SlowSettlement:
    """Replaces ``settle``. It waits until ``go`` is set, and raises the next error in ``errors``."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.settled: list[set[str]] = []
        self.errors: list[Exception] = []

    def __call__(self, _: Stores, batch_ids: Collection[str]) -> set[str]:
        assert self.go.wait(60)
        self.settled.append(set(batch_ids))
        if self.errors:
            raise self.errors.pop()
        return set(batch_ids)


@pytest.fixture
def settlement(monkeypatch: pytest.MonkeyPatch) -> SlowSettlement:
    slow = SlowSettlement()
    monkeypatch.setattr(module, "settle", slow)
    return slow


@pytest.fixture
def settler(worker_settings: Settings, db: Db, blobs: LocalBlobs, settlement: SlowSettlement) -> Iterator[Settler]:
    settler = Settler(open_stores(worker_settings, app="test", db=db, blobs=blobs))
    yield settler
    settlement.go.set()
    settler.stop()


def test_a_slow_settlement_delays_nothing_and_what_does_not_fit_is_left_to_the_sweep(
    settler: Settler, settlement: SlowSettlement
) -> None:
    for number in range(100):
        settler.submit(f"{number:03d}-{part}" for part in range(20))  # returns at once, although nothing is settled
    settlement.go.set()
    wait_until(lambda: sum(map(len, settlement.settled)) >= 512)
    assert sum(map(len, settlement.settled)) < 600
    assert max(map(len, settlement.settled)) == 32


@pytest.mark.parametrize("error", [StoreAway("away"), RuntimeError("a bug")], ids=["store", "bug"])
def test_an_error_is_logged_and_later_batches_are_settled(
    settler: Settler, settlement: SlowSettlement, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    settlement.go.set()
    settlement.errors = [error]
    with caplog.at_level(logging.WARNING, "shelfsight.error"):
        settler.submit(["one"])
        wait_until(lambda: caplog.records)
    settler.submit(["two"])
    wait_until(lambda: settlement.settled == [{"one"}, {"two"}])
    assert "the sweep will settle them" in caplog.text


def test_after_a_stop_nothing_more_is_settled(settler: Settler, settlement: SlowSettlement) -> None:
    settlement.go.set()
    settler.stop()
    settler.submit(["late"])
    assert settlement.settled == []
    assert "settle" not in {thread.name for thread in threading.enumerate()}
