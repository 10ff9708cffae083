"""Run the web front as in production: gunicorn with the project's configuration, in separate processes."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scripts.local.installation import ROOT
from scripts.local.servers.ports import free_port
from shared import settings
from tests.support.service_stack import wait_until


@dataclass(frozen=True, slots=True)
class WebFront:
    """A web front that is running in its own processes."""

    port: int
    environment: dict[str, str]
    log: Path
    pid: int

    @property
    def url(self) -> str:
        """The URL of the web front."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker_pid(self) -> int:
        """The pid of the one process that handles requests."""
        (worker,) = psutil.Process(self.pid).children()
        return int(worker.pid)

    def log_lines(self, channel: str) -> list[dict[str, Any]]:
        """Return the parsed log lines of one channel."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["channel"] == channel]


@contextmanager
def run_web_front(mongo: settings.Mongo, folder: Path, **variables: str) -> Iterator[WebFront]:
    """Run a web front with one gunicorn worker on a test database until the ``with`` block ends. Redis is unreachable.

    :param variables: environment variables of the web front, in addition to those of this process.
    """
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MONGODB_URL": mongo.url,
        "MONGODB_DATABASE": mongo.database,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "BLOBS_ROOT": str(folder / "blobs"),
        "BLOBS_MIN_FREE_BYTES": "0",
        "WEB_PORT": str(port),
        "WEB_WORKERS": "1",
        **variables,
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "web/server/gunicorn_conf.py", "web.app:create_app()"]
    log = folder / "front.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: process.poll() is not None or _is_healthy(port), 120, "the web front responds")
        yield WebFront(port, environment, log, process.pid)
    finally:
        process.terminate()
        process.wait(120)


def _is_healthy(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
    except OSError:
        return False
    return True
