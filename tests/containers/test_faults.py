"""``kill -9`` of whole containers while batches are uploaded, cancelled and reprocessed: nothing is lost and nothing is doubled."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import httpx
import pytest

from scripts.containers.engine import Deployment, EngineError
from tests.containers.oracle import find_problems, read_backlog, read_ledger
from tests.faults.upload_load import UploadLoad
from tests.support.service_stack import wait_until

_RECOVERY_S: Final = 90.0


def kill(deployment: Deployment, container: str) -> None:
    """Kill all processes in a container. The engine restarts the container by its restart policy."""
    with contextlib.suppress(EngineError):  # the kill also ends the command that sends it
        deployment.execute(container, "sh", "-c", "kill -9 -1")


def is_healthy(deployment: Deployment, container: str) -> bool:
    state = deployment.inspect(container)["State"]
    return bool(state["Running"]) and state.get("Health", {}).get("Status", "healthy") == "healthy"


@pytest.mark.parametrize("service", ["worker", "redis", "mongodb", "web", "inspector", "jobs", "sweep", "nginx"])
def test_a_container_is_killed_under_load_and_nothing_is_lost_or_doubled(
    service: str, deployment: Deployment, url: str, client: httpx.Client, report: Callable[[str], None]
) -> None:
    before = read_ledger(client)
    load = UploadLoad(url, sum(service.encode()), lambda: read_backlog(url))
    load.start()
    wait_until(lambda: len(load.accepted) >= 3, 60, "the load is running")
    victim = deployment.containers(service)[0]
    starts = deployment.inspect(victim)["RestartCount"]
    for batch in load.accepted[:3]:
        load.changes.reprocess(batch.batch_id, "all", ["grayscale"])
    load.changes.cancel(load.accepted[-1].batch_id)
    kill(deployment, victim)
    load.changes.reprocess(load.accepted[0].batch_id, "all", [])  # its outcome may be unknown
    load.changes.cancel(load.accepted[1].batch_id)
    wait_until(lambda: deployment.inspect(victim)["RestartCount"] > starts, _RECOVERY_S, f"{service} is restarted")
    accepted_before = len(load.accepted)
    wait_until(lambda: len(load.accepted) >= accepted_before + 3, _RECOVERY_S, "uploads continue")
    wait_until(lambda: is_healthy(deployment, victim), _RECOVERY_S, f"{service} is healthy")
    assert load.finish(60)
    began = time.monotonic()
    cancelled = [batch.batch_id for batch in load.accepted if load.changes.is_cancelled(batch.batch_id)]
    assert find_problems(client, load.accepted, before, cancelled=cancelled) == []
    assert load.rejections + load.changes.rejections == []
    report(f"{service}: {len(load.accepted)} batches, {sum(load.retries.values())} retries, all finished {time.monotonic() - began:.1f} s later")
