"""A worker that is told to stop gives back what it cannot finish: at once, and as nobody's fault."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.support.service_stack import Stack
from tests.support.web_client import item, picture

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

IMAGES = 600


def test_a_stop_gives_back_what_is_being_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_TASK_S", "250")  # a task that does not end by itself within the soft shutdown
    stack = Stack(tmp_path / "data")
    try:
        stack.start()
        shelf = picture(1, (640, 480))
        body = [item(shelf) for _ in range(IMAGES)]
        answer = httpx.post(f"{stack.url}/upload_image_batch", json=body, timeout=120)
        assert answer.status_code == 202, answer.text[:300]
        client: MongoClient[dict[str, Any]] = MongoClient(stack.mongo_url)
        with client:
            images = client["shelfsight"]["images"]
            until = time.monotonic() + 240
            while not images.count_documents({"status": "done"}):
                assert time.monotonic() < until
                time.sleep(0.1)
            stopped = images.find_one({"status": "done"})["work"]["finisher"]  # type: ignore[index]
            pid = stack.kill("worker-1", signal.SIGTERM)
            while _lives(pid):
                assert time.monotonic() < until
                time.sleep(0.05)
            # The next worker may have claimed some of them by now.
            assert images.count_documents({"work.released_for": {"$in": ["SystemExit", "not_begun"]}}) > 0
            assert images.count_documents({"$or": [{"work.solo": True}, {"work.faults": {"$gt": 0}}]}) == 0
            assert images.count_documents({"status": "processing", "work.owner": stopped}) == 0  # nothing waits for its lease to end
        _wait_until_done(stack, answer.json()["links"]["self"])
    finally:
        stack.stop()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until_done(stack: Stack, path: str) -> None:
    until = time.monotonic() + 600
    status = ""
    while status != "done":
        assert time.monotonic() < until, status
        status = httpx.get(f"{stack.url}{path}?wait=10", timeout=60).json()["status"]
