"""``--watch``: a file that another program has locked is sent, or removed, when it can be; the other files do not wait for it."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.client.files import DEFAULTS
from scripts.client.local_files import Identity
from scripts.client.send_group import Sender
from scripts.client.watching import sending, watcher
from scripts.client.watching.state import State
from scripts.client.watching.watcher import Options, Watcher
from tests.support.service_stack import wait_until
from tests.unit.scripts.client.scripted_service import PATIENCE_S, ScriptedService

pytestmark = pytest.mark.slow


class Locks:
    """Files whose opening is refused for some times, as by a program that holds them. Root could open any file otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: Counter[str] = Counter()
        self._open = os.open
        monkeypatch.setattr(os, "open", self._refuse)

    def _refuse(self, path: Any, *arguments: Any, **options: Any) -> int:
        name = Path(os.fsdecode(path)).name
        if self.left[name] > 0:
            self.left[name] -= 1
            raise PermissionError(13, "Permission denied", str(path))
        return self._open(path, *arguments, **options)


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Locks:
    return Locks(monkeypatch)


class Running:
    """A watch of a folder in a thread of the test, and what it has said."""

    def __init__(self, service: ScriptedService, folder: Path) -> None:
        self.said: list[str] = []
        self._service, self._folder, self._stop = service, folder, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        options = Options(self._folder, dict(DEFAULTS), settle_s=0.0, removes=True, parallel=2, max_images=10, max_bytes=1 << 20, max_image_bytes=1 << 20)
        sender = Sender(self._service.url, None, PATIENCE_S, self._stop)
        with State(self._folder.parent / "state.sqlite3", {"folder": str(self._folder)}) as state:
            Watcher(options, sender, state, self._stop, self.said.append).run()
        sender.close()

    def count(self, beginning: str) -> int:
        """Return how often a line with this beginning was said."""
        return sum(line.startswith(beginning) for line in self.said)

    def end(self) -> None:
        """Stop it, and wait for its end."""
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def watch(service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Running]]:
    """Return a function that watches a folder, and tries a locked file again after tenths of a second."""
    for name, seconds in (("_POLL_S", 0.1), ("_LOCKED_S", 0.3), ("_MAX_RETRY_S", 0.3)):
        monkeypatch.setattr(watcher, name, seconds)
    started: list[Running] = []

    def start(folder: Path) -> Running:
        started.append(Running(service, folder))
        return started[-1]

    yield start
    for running in started:
        running.end()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_cannot_be_read_is_sent_later_and_delays_no_other_file(
    service: ScriptedService, folder: Path, watch: Callable[[Path], Running], locks: Locks
) -> None:
    locks.left["0.jpg"] = 1_000_000
    running = watch(folder)
    wait_until(lambda: names(folder) == ["0.jpg"], 60, "the other files are done")
    assert sorted(service.stored) == [f"{number}.jpg" for number in range(1, 6)]
    locks.left["0.jpg"] = 2
    wait_until(lambda: not names(folder), 60, "the locked file is done")
    running.end()
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))
    assert running.count(f"{folder / '0.jpg'}: ") == 1
    assert f"{folder / '0.jpg'}: The file cannot be read now: Permission denied" in running.said


def test_a_file_that_cannot_be_read_when_it_is_removed_is_removed_later_and_delays_no_other_file(
    service: ScriptedService, folder: Path, watch: Callable[[Path], Running], locks: Locks
) -> None:
    service.finished = False
    running = watch(folder)
    wait_until(lambda: len(service.stored) == 6, 60, "all files are sent")
    locks.left["0.jpg"] = 1_000_000
    service.finished = True
    wait_until(lambda: names(folder) == ["0.jpg"], 60, "the other files are removed")
    locks.left["0.jpg"] = 2
    wait_until(lambda: not names(folder), 60, "the locked file is removed")
    running.end()
    assert len(service.stored) == 6
    assert running.count(f"{folder / '0.jpg'}: ") == 1
    assert f"{folder / '0.jpg'}: The file cannot be removed: Permission denied" in running.said


def test_a_file_that_may_not_be_unlinked_is_removed_later(
    service: ScriptedService, folder: Path, watch: Callable[[Path], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(range(2))
    unlink = Path.unlink

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "3.jpg" and next(refusals, None) is not None:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    running = watch(folder)
    wait_until(lambda: not names(folder), 60, "all files are removed")
    running.end()
    assert next(refusals, None) is None
    assert running.count(f"{folder / '3.jpg'}: The file cannot be removed: Permission denied") == running.count(f"{folder / '3.jpg'}: ") == 1


def test_a_locked_file_of_an_interrupted_request_is_sent_later_and_delays_no_other_file(
    service: ScriptedService, folder: Path, watch: Callable[[Path], Running], locks: Locks
) -> None:
    file = sending.read(str(folder / "0.jpg"), Identity.of((folder / "0.jpg").stat()), dict(DEFAULTS), 1 << 20).file
    with State(folder.parent / "state.sqlite3", {"folder": str(folder)}) as state:
        state.begin("earlier", [file])
    locks.left["0.jpg"] = 1_000_000
    running = watch(folder)
    wait_until(lambda: names(folder) == ["0.jpg"], 60, "the other files are done")
    locks.left["0.jpg"] = 2
    wait_until(lambda: not names(folder), 60, "the locked file is done")
    running.end()
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))
    assert [request.names for request in service.requests if request.key == "earlier"] == [["0.jpg"]]
    assert running.count(f"{folder / '0.jpg'}: ") == 1
