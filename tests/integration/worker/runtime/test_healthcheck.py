"""Tests of the health checks: ``python -m worker.runtime.healthcheck`` and ``python -m web.healthcheck``."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port
from shared import settings
from shared.bootstrap import open_stores
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS, JOBS
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.gunicorn_front import run_web_front
from tests.support.service_stack import wait_until
from web import healthcheck as web_healthcheck
from worker.runtime import healthcheck as worker_healthcheck
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow


def check(*command: str, **variables: str) -> tuple[int, str]:
    """Run a health check.

    :param variables: environment variables, in addition to those of this process.
    :returns: the exit code and the standard error of the check.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    process = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.stdout == ""
    assert process.stderr.count("\n") == (1 if process.returncode else 0), process.stderr
    return process.returncode, process.stderr


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port at which a server accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def check_worker(mongo: settings.Mongo, *arguments: str) -> tuple[int, str]:
    return check("-m", "worker.runtime.healthcheck", *arguments, MONGODB_URL=mongo.url, MONGODB_DATABASE=mongo.database)


def send_heartbeat_and_check(mongo: settings.Mongo, db: Db, impediment: str | None = None) -> tuple[int, str]:
    heartbeats.send_heartbeat(db, "one", IMAGES, impediment)
    return check_worker(mongo)


@pytest.mark.parametrize(
    ("image", "limit_s"), [("web", web_healthcheck._LIMIT_S), ("worker", worker_healthcheck._LIMIT_S)]
)
def test_a_check_ends_before_the_time_limit_of_its_container(image: str, limit_s: float) -> None:
    timeout = re.search(r"HEALTHCHECK .*--timeout=(\d+)s", (ROOT / f"Dockerfile.{image}").read_text())
    assert timeout is not None
    assert limit_s + 1 <= int(timeout[1])  # one more second, because Python has to start, too


def test_a_worker_of_this_host_with_a_recent_heartbeat_is_healthy(mongo: settings.Mongo, db: Db) -> None:
    missing = f"error: no worker on {socket.gethostname()} has sent a heartbeat in the last 15 s; see its log\n"
    assert check_worker(mongo) == (1, missing)
    wait_until(
        lambda: send_heartbeat_and_check(mongo, db) == (0, ""), 60, "a healthy worker"
    )  # the check is repeated, as in a container
    db.workers.update_one({"_id": "one"}, [{"$set": {"seen": {"$subtract": ["$$NOW", 16_000]}}}])
    assert check_worker(mongo) == (1, missing)


def test_a_worker_with_an_impediment_is_not_healthy(mongo: settings.Mongo, db: Db) -> None:
    impeded = f"error: the worker on {socket.gethostname()} cannot work (model_unusable); see its log\n"
    wait_until(lambda: send_heartbeat_and_check(mongo, db, "model_unusable") == (1, impeded), 60, "the impediment")
    heartbeats.send_heartbeat(db, "one", IMAGES, "model_unusable")
    assert heartbeats.find_impediment(db, IMAGES, "another") is None
    assert not heartbeats.is_worker_alive(db, IMAGES)
    assert heartbeats.find_impediment(db, IMAGES) == "model_unusable"
    assert heartbeats.find_impediment(db, INSPECTIONS) is None
    db.workers.update_one({"_id": "one"}, [{"$set": {"seen": {"$subtract": ["$$NOW", 16_000]}}}])
    assert heartbeats.find_impediment(db, IMAGES) is None
    heartbeats.send_heartbeat(db, "one", IMAGES)
    assert heartbeats.is_worker_alive(db, IMAGES)
    assert heartbeats.find_impediment(db, IMAGES) is None


def test_a_worker_of_another_host_does_not_count(mongo: settings.Mongo, db: Db) -> None:
    heartbeats.send_heartbeat(db, "one", IMAGES)
    db.workers.update_one({"_id": "one"}, {"$set": {"host": "another"}})
    assert heartbeats.is_worker_alive(db, IMAGES)
    assert check_worker(mongo)[0] == 1


def test_the_worker_for_jobs_has_a_health_check_of_its_own(mongo: settings.Mongo, db: Db) -> None:
    heartbeats.send_heartbeat(db, "one", IMAGES)
    missing = f"error: no worker for jobs on {socket.gethostname()} has sent a heartbeat in the last 15 s; see its log\n"
    assert check_worker(mongo, "--jobs") == (1, missing)
    heartbeats.send_heartbeat(db, "two", JOBS)
    wait_until(lambda: check_worker(mongo, "--jobs") == (0, ""), 60, "a healthy worker for jobs")


def test_the_sweep_is_healthy_while_its_lease_is_held(mongo: settings.Mongo, db: Db, blobs_root: Path) -> None:
    assert check_worker(mongo, "--sweep") == (1, "error: no sweep holds its lease; see the sweep's log\n")
    configuration = settings.Settings(mongo=mongo, redis=settings.Redis(url="redis://127.0.0.1:1/0"))
    sweep = Sweep(open_stores(configuration, app="test", db=db, blobs=LocalBlobs(blobs_root)))

    def healthy() -> bool:
        sweep.tick()
        return check_worker(mongo, "--sweep") == (0, "")

    wait_until(healthy, 60, "a healthy sweep")
    db.leases.update_one({"_id": "sweep"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    assert check_worker(mongo, "--sweep")[0] == 1


@pytest.mark.slow
def test_a_database_that_does_not_respond_is_reported_within_seconds(silent_port: int) -> None:
    started_at = time.monotonic()
    code, message = check(
        "-m", "worker.runtime.healthcheck", MONGODB_URL=f"mongodb://127.0.0.1:{silent_port}/?directConnection=true"
    )
    assert (code, message) == (1, "error: The database does not respond; retry later.\n")
    assert time.monotonic() - started_at < 25


def test_a_check_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'cv2', 'numpy', 'celery', 'flask'}"
    assert check("-c", f"import sys, worker.runtime.healthcheck; sys.exit(len({heavy} & set(sys.modules)))")[0] == 0
    assert (
        check(
            "-c",
            f"import sys, web.healthcheck; sys.exit(len(({heavy} | {{'pydantic', 'pymongo'}}) & set(sys.modules)))",
        )[0]
        == 0
    )


def test_a_web_process_that_responds_is_healthy(mongo: settings.Mongo, db: Db, tmp_path: Path) -> None:
    with run_web_front(mongo, tmp_path) as front:
        wait_until(
            lambda: check("-m", "web.healthcheck", WEB_PORT=str(front.port)) == (0, ""), 60, "a healthy web process"
        )
    code, message = check("-m", "web.healthcheck", WEB_PORT=str(front.port))
    assert (code, message) == (1, f"error: no web process responds at 127.0.0.1:{front.port}: [Errno 111] Connection refused\n")


@pytest.mark.slow
def test_a_web_process_that_hangs_is_reported_within_seconds(silent_port: int) -> None:
    started_at = time.monotonic()
    assert check("-m", "web.healthcheck", WEB_PORT=str(silent_port)) == (
        1,
        f"error: no web process responds at 127.0.0.1:{silent_port}: timed out\n",
    )
    assert time.monotonic() - started_at < 60


def test_a_web_process_that_responds_with_an_error_is_not_healthy() -> None:
    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", free_port()), Broken) as server:
        threading.Thread(target=server.handle_request).start()
        port = server.server_port
        assert check("-m", "web.healthcheck", WEB_PORT=str(port)) == (1, f"error: unexpected response from 127.0.0.1:{port}/healthz: status 500, expected 200\n")
