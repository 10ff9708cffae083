"""A worker whose task ends while Redis is away receives further wakeups when Redis is back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local.temporary_servers import RedisServer
from shared import settings
from shared.queue.wakeups import WakeupPublisher
from shared.queues import IMAGES
from shared.storage.mongo import Db
from tests.support.paths import ROOT
from tests.support.service_stack import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def worker(db: Db, mongo: settings.Mongo, redis: RedisServer, tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    variables = {
        "MONGODB_URL": mongo.url, "MONGODB_DATABASE": db.name, "REDIS_URL": redis.url, "BLOBS_ROOT": str(tmp_path / "blobs"),
        "WAITING_WORKER": str(tmp_path), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(
        [sys.executable, "-m", "tests.support.waiting_worker"], cwd=ROOT, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
    ) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.usefixtures("worker")
def test_a_task_that_ends_while_redis_is_away_does_not_leave_the_worker_idle(redis: RedisServer, tmp_path: Path) -> None:
    wakeups = WakeupPublisher(settings.Redis(url=redis.url), IMAGES)
    started = tmp_path / "started"

    def begun() -> int:
        return len(started.read_text().splitlines()) if started.exists() else 0

    wakeups.publish()
    wait_until(lambda: begun() == 1, 90, "the worker has received the wakeup")
    redis.kill()
    (tmp_path / "end").touch()
    wait_until(lambda: b"could not be acknowledged" in (tmp_path / "log").read_bytes(), 60, "the worker has noticed that Redis is away")
    redis.start()
    wait_until(lambda: wakeups.publish() and begun() >= 2, 60, "the worker has received a wakeup again")
    wakeups.close()
