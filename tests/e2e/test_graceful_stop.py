"""A worker that is stopped releases the images that it cannot finish, at once and without counting a fault against them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.support.service_stack import Stack
from tests.support.web_client import image_payload, make_image

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

IMAGES = 600


def test_a_stopped_worker_releases_the_images_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_TASK_S", "250")  # a task that does not end within the soft shutdown
    stack = Stack(tmp_path / "data")
    try:
        stack.start()
        image = make_image(1, (640, 480))
        body = [image_payload(image) for _ in range(IMAGES)]
        response = httpx.post(f"{stack.url}/upload_image_batch", json=body, timeout=120)
        assert response.status_code == 202, response.text[:300]
        client: MongoClient[dict[str, Any]] = MongoClient(stack.mongo_url)
        with client:
            images = client["shelfsight"]["images"]
            deadline = time.monotonic() + 240
            while not images.count_documents({"status": "done"}):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            stopped_worker = images.find_one({"status": "done"})["work"]["finisher"]  # type: ignore[index]
            pid = stack.kill("worker-1", signal.SIGTERM)
            while _is_running(pid):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            # The restarted worker may have claimed some of them already.
            assert images.count_documents({"work.released_for": {"$in": ["SystemExit", "not_begun"]}}) > 0
            assert images.count_documents({"$or": [{"work.solo": True}, {"work.faults": {"$gt": 0}}]}) == 0
            assert images.count_documents({"status": "processing", "work.owner": stopped_worker}) == 0  # no image waits for its lease to expire
        _wait_until_done(stack, response.json()["links"]["self"])
    finally:
        stack.stop()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until_done(stack: Stack, path: str) -> None:
    deadline = time.monotonic() + 600
    status = ""
    while status != "done":
        assert time.monotonic() < deadline, status
        status = httpx.get(f"{stack.url}{path}?wait=10", timeout=60).json()["status"]
