"""The health checks of containers: ``python -m worker.runtime.healthcheck`` and ``python -m web.healthcheck``."""

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

from scripts.local import embedded_servers
from scripts.local.installation import ROOT
from shared import settings
from shared.bootstrap import open_stores
from shared.queue import heartbeats
from shared.queues import IMAGES, INSPECTIONS
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from tests.support.gunicorn_front import run_web_front
from tests.support.service_stack import wait_until
from web import healthcheck as web_alive
from worker.runtime import healthcheck as worker_alive
from worker.sweep.sweep import Sweep

pytestmark = pytest.mark.slow


def ask(*command: str, **variables: str) -> tuple[int, str]:
    """Run a check.

    :returns: its exit code and what it says.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    ended = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == (1 if ended.returncode else 0), ended.stderr
    return ended.returncode, ended.stderr


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def of_a_worker(mongo: settings.Mongo, *arguments: str) -> tuple[int, str]:
    return ask("-m", "worker.runtime.healthcheck", *arguments, MONGODB_URL=mongo.url, MONGODB_DATABASE=mongo.database)


def beat_and_ask(mongo: settings.Mongo, db: Db, hindrance: str | None = None) -> tuple[int, str]:
    heartbeats.send_heartbeat(db, "one", IMAGES, hindrance)
    return of_a_worker(mongo)


@pytest.mark.parametrize(("image", "limit_s"), [("web", web_alive._LIMIT_S), ("worker", worker_alive._LIMIT_S)])
def test_it_says_so_before_its_container_is_given_up(image: str, limit_s: float) -> None:
    given = re.search(r"HEALTHCHECK .*--timeout=(\d+)s", (ROOT / f"Dockerfile.{image}").read_text())
    assert given is not None
    assert limit_s + 1 <= int(given[1])  # a Python has to start, too


def test_a_worker_of_this_host_that_was_heard_of_lately_is_alive(mongo: settings.Mongo, db: Db) -> None:
    silent = f"error: no worker of {socket.gethostname()} was heard of for 15 s\n"
    assert of_a_worker(mongo) == (1, silent)
    wait_until(lambda: beat_and_ask(mongo, db) == (0, ""), 60, "it is alive")  # again and again, as a health check does
    db.workers.update_one({"_id": "one"}, [{"$set": {"seen": {"$subtract": ["$$NOW", 16_000]}}}])
    assert of_a_worker(mongo) == (1, silent)


def test_a_worker_that_is_hindered_lives_and_takes_no_work(mongo: settings.Mongo, db: Db) -> None:
    hindered = f"error: the worker of {socket.gethostname()} cannot work (model_unusable); its log says why\n"
    wait_until(lambda: beat_and_ask(mongo, db, "model_unusable") == (1, hindered), 60, "it is hindered")
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
    assert of_a_worker(mongo)[0] == 1


def test_the_sweep_is_alive_while_its_lease_is_held(mongo: settings.Mongo, db: Db, blobs_root: Path) -> None:
    assert of_a_worker(mongo, "--sweep") == (1, "error: no sweep holds the lease\n")
    around = settings.Settings(mongo=mongo, redis=settings.Redis(url="redis://127.0.0.1:1/0"))
    sweep = Sweep(open_stores(around, app="test", db=db, blobs=LocalBlobs(blobs_root)))

    def alive() -> bool:
        sweep.tick()
        return of_a_worker(mongo, "--sweep") == (0, "")

    wait_until(alive, 60, "it is alive")
    db.leases.update_one({"_id": "sweep"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    assert of_a_worker(mongo, "--sweep")[0] == 1


@pytest.mark.slow
def test_a_database_that_says_nothing_is_told_within_seconds(silent: int) -> None:
    began = time.monotonic()
    code, said = ask("-m", "worker.runtime.healthcheck", MONGODB_URL=f"mongodb://127.0.0.1:{silent}/?directConnection=true")
    assert (code, said) == (1, "error: The database does not respond; retry later.\n")
    assert time.monotonic() - began < 25


def test_a_check_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'cv2', 'numpy', 'celery', 'flask'}"
    assert ask("-c", f"import sys, worker.runtime.healthcheck; sys.exit(len({heavy} & set(sys.modules)))")[0] == 0
    assert ask("-c", f"import sys, web.healthcheck; sys.exit(len(({heavy} | {{'pydantic', 'pymongo'}}) & set(sys.modules)))")[0] == 0


def test_a_front_that_answers_is_alive(mongo: settings.Mongo, db: Db, tmp_path: Path) -> None:
    with run_web_front(mongo, tmp_path) as front:
        wait_until(lambda: ask("-m", "web.healthcheck", WEB_PORT=str(front.port)) == (0, ""), 60, "it is alive")
    code, said = ask("-m", "web.healthcheck", WEB_PORT=str(front.port))
    assert (code, said) == (1, f"error: nobody answers at 127.0.0.1:{front.port}: [Errno 111] Connection refused\n")


@pytest.mark.slow
def test_a_front_that_hangs_is_told_within_seconds(silent: int) -> None:
    began = time.monotonic()
    assert ask("-m", "web.healthcheck", WEB_PORT=str(silent)) == (1, f"error: nobody answers at 127.0.0.1:{silent}: timed out\n")
    assert time.monotonic() - began < 60


def test_a_front_that_answers_with_an_error_is_not_alive() -> None:
    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", embedded_servers.free_port()), Broken) as server:
        threading.Thread(target=server.handle_request).start()
        port = server.server_port
        assert ask("-m", "web.healthcheck", WEB_PORT=str(port)) == (1, f"error: 127.0.0.1:{port}/healthz says 500\n")
