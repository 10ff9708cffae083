"""A queue is paused and resumed while all services run, and the queues and workers show what really happens."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from shared.queues import IMAGES
from tests.e2e.installations import read_status, wait_until_ready
from tests.support.service_stack import Stack, wait_until
from tests.support.web_client import image_payload, make_image

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def own_stack(tmp_path: Path) -> Any:
    """Run all services for this test alone, because it stops the work of all others."""
    stack = Stack(tmp_path / "data")
    try:
        stack.start()
        wait_until_ready(stack)
        yield stack
    finally:
        stack.stop()


def read(stack: Stack, path: str) -> Any:
    response = httpx.get(f"{stack.url}{path}", timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


def change(stack: Stack, action: str) -> Any:
    response = httpx.post(f"{stack.url}/admin/queues/images/{action}", timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


def upload(stack: Stack, count: int) -> str:
    response = httpx.post(f"{stack.url}/upload_image_batch", json=[image_payload(make_image(seed)) for seed in range(count)], timeout=120)
    assert response.status_code == 202, response.text
    path: str = response.json()["links"]["self"]
    return path


def wait_for_queue(stack: Stack, **expected: Any) -> Any:
    """Wait until the queue of images has these members, and return it. Each web process measures it for itself, every few seconds."""
    found: Any = None

    def is_as_expected() -> bool:
        nonlocal found
        found = read(stack, "/admin/queues")["queues"][0]
        return all(found[name] == value for name, value in expected.items())

    wait_until(is_as_expected, 120, f"a queue with {expected}")
    return found


def image_workers(stack: Stack) -> Any:
    return [worker for worker in read(stack, "/admin/workers")["workers"] if worker["queue"] == "images"]


def test_a_paused_queue_stays_paused_across_restarts_and_is_processed_when_it_is_resumed(own_stack: Stack) -> None:
    stack = own_stack
    (first,) = image_workers(stack)
    assert change(stack, "pause")["paused"]
    path = upload(stack, 5)
    redis = Redis.from_url(stack.redis_url)
    wait_until(lambda: redis.llen(IMAGES.name) == 0, 120, "a worker to receive the wakeup")
    stack.kill("worker-1")
    wait_until(lambda: any(worker["alive"] and worker["id"] != first["id"] and worker["model"] for worker in image_workers(stack)), 240, "a new worker")
    queue = wait_for_queue(stack, waiting=5, paused=True)
    assert (queue["running"], queue["eta_s"]) == (0, None)
    assert [(store["store_name"], store["waiting"]) for store in queue["by_store"]] == [("north", 5)]
    assert read(stack, path)["counts"]["queued"] == 5
    assert httpx.get(f"{stack.url}/readyz", timeout=120).status_code == 200
    status = json.loads(read_status(stack.data).stdout)
    assert list(status["paused"]) == ["images"]
    assert any("resume it with POST /admin/queues/images/resume" in line for line in status["advice"])
    change(stack, "resume")
    wait_until(lambda: read(stack, path)["status"] == "done", 240, "the batch to be done")
    wait_until(lambda: not any(worker["alive"] for worker in image_workers(stack) if worker["id"] == first["id"]), 120, "the end of the first worker")
    (worker,) = [worker for worker in image_workers(stack) if worker["alive"]]
    assert worker["model"] == read(stack, path)["images"][0]["model"]
    wait_for_queue(stack, waiting=0, running=0, eta_s=0, paused=False, workers=1)
    assert {worker["queue"] for worker in read(stack, "/admin/workers")["workers"]} == {"images", "inspections", "jobs"}
    second = upload(stack, 3)
    wait_until(lambda: read(stack, second)["status"] == "done", 240, "the batch to be done")
    wait_until(lambda: sum(worker["finished_per_minute"] or 0 for worker in image_workers(stack)) > 0, 60, "a measured rate")
