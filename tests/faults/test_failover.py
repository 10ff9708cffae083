"""Nothing is lost when the primary of a replica set is killed, frozen, or stepped down under load."""

from collections.abc import Iterator

import pytest

from shared.ledger import audit
from tests.faults.fault_injector import FaultCounts, FaultInjector
from tests.faults.oracle import verify, wait_until_terminal
from tests.faults.services import FaultStack
from tests.faults.upload_load import UploadLoad

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]
_SEED = 14


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    fault_stack = FaultStack(tmp_path_factory.mktemp("failover"), with_replica_set=True)
    try:
        fault_stack.start()
        yield fault_stack
    finally:
        fault_stack.stop()


def test_nothing_is_lost_or_doubled_when_the_primary_fails(stack: FaultStack) -> None:
    load = UploadLoad(stack.url, _SEED, lambda: audit.backlog(stack.db).images, changes=True, blobs_root=stack.blobs_root)
    load.start()
    injector = FaultInjector(stack, _SEED)
    wanted = FaultCounts(kills=3, flushes=1, mongo_kills=1, redis_outages=0, disk_fills=0)
    last = injector.run(wanted, pause_s=2.0, limit_s=300)
    wait_until_terminal(stack, load, last)
    verdict = verify(stack, load)
    assert verdict.problems == []
    assert verdict.lost == verdict.doubled == verdict.valid_failed == verdict.files_wrong == 0
    assert injector.missing(wanted) == {}
