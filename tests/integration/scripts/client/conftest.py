"""Fixtures for tests of ``scripts/upload``: a web front, what processes its images, and runs of the command."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.local.installation import ROOT
from shared import settings
from shared.ledger import claims, closing, results, turns
from shared.ledger.results import Result
from shared.storage.mongo import Db
from tests.support.gunicorn_front import WebFront, run_web_front
from tests.support.ledger import claimed_fences


@pytest.fixture
def front(db: Db, mongo: settings.Mongo, tmp_path: Path) -> Iterator[WebFront]:
    """Run a web front whose access is open."""
    folder = tmp_path / "front_data"
    folder.mkdir()
    with run_web_front(mongo, folder) as running:
        yield running


@pytest.fixture
def processing(db: Db) -> Iterator[None]:
    """Process all images, while the test runs, as a worker does. Those whose file name begins with ``bad`` fail."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            turns.repair(db)
            while (claim := claims.claim(db, "worker", 32, 60)).images:
                names = {image["_id"]: image.get("filename") or "" for image in claim.images}
                bad = ("corrupt", "The image file is damaged.")
                found = [
                    Result(name, fence, {}, bad) if names[name].startswith("bad") else Result(name, fence, {"width": 1, "height": 1})
                    for name, fence in claimed_fences(claim)
                ]
                results.finish(db, "worker", found)
                closing.close_batches(db, {image["batch_id"] for image in claim.images})

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the command has printed: the exit code, the summary (``--json``), and standard error."""

    code: int
    summary: dict[str, Any]
    stderr: str


Upload = Callable[..., Run]


@pytest.fixture
def upload(front: WebFront, tmp_path: Path) -> Upload:
    """Return a function that runs the command to its end, in the test's folder."""

    def run(*arguments: str, **variables: str) -> Run:
        command = [sys.executable, "-m", "scripts.client.main", "--url", front.url, "--quiet", "--json", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return Run(done.returncode, json.loads(done.stdout or "{}"), done.stderr)

    return run


class Watch:
    """A run of ``scripts/upload --watch`` that goes on until it is stopped. Files settle within half a second."""

    def __init__(self, url: str, folder: Path, arguments: tuple[str, ...]) -> None:
        self._log = folder.parent / "watch.log"
        command = [sys.executable, "-m", "scripts.client.main", "--watch", str(folder), "--url", url, "--json", "--settle", "0.5", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)

    def log(self) -> str:
        """Return what was printed on standard error so far."""
        return self._log.read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> Run:
        """Stop it, and return what it has printed."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return Run(self.process.returncode, json.loads(out or "{}"), self.log())


StartWatch = Callable[..., Watch]


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """Return an empty folder for a camera."""
    path = tmp_path / "drop"
    path.mkdir()
    return path


@pytest.fixture
def watch(front: WebFront, drop: Path) -> Iterator[StartWatch]:
    """Return a function that starts to watch the folder."""
    started: list[Watch] = []

    def start(*arguments: str, url: str = "") -> Watch:
        started.append(Watch(url or front.url, drop, arguments))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()
