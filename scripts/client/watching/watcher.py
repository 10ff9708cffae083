"""Watch a folder until it is stopped: find complete files, send them, ask for their results, and remove those that are done."""

import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.client.send_group import GaveUp, Sender
from scripts.client.summary import counted
from scripts.client.uploader import GroupResult
from scripts.client.watching import removal, sending
from scripts.client.watching.scan import Candidates, find_images
from scripts.client.watching.sending import ReadFile, Refused, Unsettled
from scripts.client.watching.state import NEED_ATTENTION, RETRIED, State, WatchedFile

_POLL_S: Final = 1.0
_SHARE: Final = 4
"""A pause between two passes of the folder is at least so many times as long as a pass."""
_MAX_READY: Final = 2000
_MAX_REPORTED: Final = 10_000
_RETRY_S, _MAX_RETRY_S = 2.0, 60.0
_LOCKED_S: Final = 10.0
_RESULTS_RETRY_S: Final = 10.0
_PRUNE_S: Final = 86_400.0
_KEY_LIFETIME_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Options:
    """How a folder is watched. ``fields`` is the metadata of all images. Sizes are in bytes."""

    folder: Path
    fields: dict[str, Any]
    settle_s: float
    removes: bool
    parallel: int
    max_images: int
    max_bytes: int
    max_image_bytes: int


class Watcher:
    """Watches one folder. Only the thread that calls ``run`` uses the state; other threads send requests."""

    def __init__(self, options: Options, sender: Sender, state: State, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Create a watcher.

        :param stop: once this event is set, ``run`` ends after the requests in progress.
        :param say: shows a line to the user.
        """
        self._options, self._sender, self._state, self._stop, self._say = options, sender, state, stop, say
        self._candidates = Candidates(options.settle_s, self._report)
        self._ready: deque[tuple[str, Any]] = deque()
        self._queued: set[str] = set()
        self._sends: dict[Future[GroupResult | None], str] = {}
        self._asks: dict[Future[list[tuple[str, str, str]]], str] = {}
        self._reported: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._not_before: dict[str, float] = {}
        self._retry_at = self._ask_at = 0.0
        self._retry_pause = _RETRY_S
        self._prune_at = time.monotonic() + _PRUNE_S
        self.uploaded = self.removed = 0

    @property
    def in_flight(self) -> int:
        """The number of requests that have not been answered yet."""
        return len(self._running())

    @property
    def not_uploaded(self) -> int:
        """The number of files that were seen, and not sent yet, as far as they are observed."""
        return len(self._candidates)

    def run(self) -> None:
        """Watch the folder until ``stop`` is set, and record the responses to the requests in progress."""
        with ThreadPoolExecutor(self._options.parallel + 1) as pool:
            while not self._stop.is_set():
                began = time.monotonic()
                self._look()
                ended = time.monotonic()
                self._work(pool, ended + max(_POLL_S, _SHARE * (ended - began)))
            wait(self._running())
            self._handle_finished()

    def _look(self) -> None:
        """Make a pass of the folder."""
        self._candidates.begin()
        seen = 0
        try:
            for path, identity in find_images(self._options.folder, self._report):
                if self._stop.is_set():
                    return
                seen += 1
                known = self._state.find(path)
                if known is not None and known.identity == identity:
                    if self._options.removes and known.state == "done":
                        self._remove(known)
                elif known is not None and known.state == "sending":
                    continue  # the version that is being sent comes first
                elif self._candidates.is_complete(path, identity, time.monotonic()) and path not in self._queued and len(self._ready) < _MAX_READY:
                    self._ready.append((path, identity))
                    self._queued.add(path)
        except OSError as error:
            self._report(str(self._options.folder), f"The folder cannot be read now: {error.strerror or error}")
            return
        self._candidates.end()
        if seen and time.monotonic() > self._prune_at:  # an empty folder may be one whose file server is away
            self._prune_at = time.monotonic() + _PRUNE_S
            self._state.forget_vanished()

    def _work(self, pool: ThreadPoolExecutor, until: float) -> None:
        """Send and ask until a time on the monotonic clock."""
        while True:
            if not self._stop.is_set():
                self._send_more(pool)
                self._ask_more(pool)
            left = until - time.monotonic()
            if left <= 0 or self._stop.is_set():
                return
            running = self._running()
            if running:
                wait(running, timeout=min(left, 0.5), return_when=FIRST_COMPLETED)
                self._handle_finished()
            else:
                self._stop.wait(min(left, 0.5))

    def _running(self) -> list[Future[Any]]:
        return [*self._sends, *self._asks]

    def _send_more(self, pool: ThreadPoolExecutor) -> None:
        if time.monotonic() < self._retry_at:
            return
        running = set(self._sends.values())
        for key, at, files in self._state.pending_groups():
            if key not in running and len(self._sends) < self._options.parallel and time.monotonic() >= self._not_before.get(key, 0.0):
                self._send_again(pool, key, at, files)
        while len(self._sends) < self._options.parallel and self._ready:
            group = self._next_group()
            if group:
                key = f"watch-{uuid.uuid4().hex}"
                self._state.begin(key, [found.file for found in group])
                self._submit(pool, key, group)

    def _submit(self, pool: ThreadPoolExecutor, key: str, group: list[ReadFile]) -> None:
        self._sends[pool.submit(sending.send, self._sender, key, group)] = key

    def _next_group(self) -> list[ReadFile]:
        group: list[ReadFile] = []
        size = 0
        while self._ready and len(group) < self._options.max_images:
            path, identity = self._ready[0]
            if group and size + identity.size > self._options.max_bytes:
                break
            self._ready.popleft()
            self._queued.discard(path)
            found = self._read_new(path, identity)
            if found is not None:
                group.append(found)
                size += identity.size
        return group

    def _read_new(self, path: str, identity: Any) -> ReadFile | None:
        """Return a file that must be sent; None if it is known, not readable now, or cannot be sent."""
        try:
            found = sending.read(path, identity, self._options.fields, self._options.max_image_bytes)
        except (Unsettled, FileNotFoundError):
            self._candidates.remove(path)  # the next pass finds it again, if it exists
            return None
        except OSError as error:
            self._report(path, f"The file cannot be read now: {error.strerror or error}")
            self._candidates.postpone(path, time.monotonic() + _LOCKED_S)
            return None
        self._candidates.remove(path)
        if self._is_known(found.file):
            return None
        try:
            sending.check(found, self._options.max_image_bytes)
        except Refused as error:
            self._state.refuse(found.file, str(error))
            self._report(path, f"refused: {error}")
            return None
        return found

    def _is_known(self, file: WatchedFile) -> bool:
        """Return whether the content was sent under this path, or under another path that the file had before."""
        known = self._state.find(file.path)
        if known is not None and known.sha256 == file.sha256 and known.state not in RETRIED:
            self._state.set_identity(file.path, file.identity)
            return True
        renamed = self._state.find_renamed(file.identity, file.sha256)
        if renamed is not None:
            self._state.rename(renamed, file.path)
        return renamed is not None

    def _send_again(self, pool: ThreadPoolExecutor, key: str, at: float, files: list[WatchedFile]) -> None:
        """Send a group that has no response with the same key, without the files that have been changed or removed since."""
        if at < time.time() - _KEY_LIFETIME_S:
            self._report(key, f"{counted(len(files), 'image was', 'images were')} sent more than 24 h ago without a response; sending again may store the same image twice.")
        group: list[ReadFile] = []
        for file in files:
            try:
                found = sending.read(file.path, file.identity, self._options.fields, self._options.max_image_bytes)
            except (Unsettled, FileNotFoundError):
                continue
            except OSError as error:
                self._report(file.path, f"The file cannot be read now: {error.strerror or error}")
                self._not_before[key] = time.monotonic() + _LOCKED_S
                return
            if found.file.sha256 == file.sha256:
                group.append(found)
        if len(group) < len(files):
            self._state.begin(key, [found.file for found in group])
        if group:
            self._submit(pool, key, group)

    def _ask_more(self, pool: ThreadPoolExecutor) -> None:
        if self._asks or time.monotonic() < self._ask_at:
            return
        for batch_id in self._state.due_batches(time.time(), 1):
            self._asks[pool.submit(sending.fetch_results, self._sender, batch_id, self._state.files_of(batch_id))] = batch_id

    def _handle_finished(self) -> None:
        for sent in [future for future in self._sends if future.done()]:
            self._handle_response(self._sends.pop(sent), sent)
        for asked in [future for future in self._asks if future.done()]:
            self._handle_results(self._asks.pop(asked), asked)

    def _handle_response(self, key: str, future: "Future[GroupResult | None]") -> None:
        try:
            result = future.result()
        except GaveUp as error:
            self._retry_at = time.monotonic() + self._retry_pause
            self._retry_pause = min(_MAX_RETRY_S, 2 * self._retry_pause)
            if not self._stop.is_set():
                self._report("", f"{error}. The files stay, and are sent again.")
            return
        self._retry_pause = _RETRY_S
        self._not_before.pop(key, None)
        if result is None:
            self._state.accept(key, None, {})
            self._report(key, "unknown: An earlier request was accepted, but its response was lost, and files of it have been changed since. Its other files stay where they are.")
            return
        refused = {index: f"{image['code']}: {image['detail']}" for index, image in zip(result.refused_indexes, result.rejected, strict=True)}
        self._state.accept(key, result.batch_id, refused)
        self.uploaded += result.accepted
        for image in result.rejected:
            self._report(image["path"], f"refused: {image['code']}: {image['detail']}")
        if result.batch_id:
            self._say(f"uploaded  {counted(result.accepted, 'image', 'images')}, batch {result.batch_id}")

    def _handle_results(self, batch_id: str, future: "Future[list[tuple[str, str, str]]]") -> None:
        try:
            results = future.result()
        except GaveUp as error:
            self._ask_at = time.monotonic() + _RESULTS_RETRY_S
            self._state.postpone(batch_id)
            if not self._stop.is_set():
                self._report("", f"The results are not known yet: {error}")
            return
        self._state.record_results(batch_id, results)
        for path, state, detail in results:
            if state in NEED_ATTENTION:
                self._report(path, f"{state}: {detail}")

    def _remove(self, file: WatchedFile) -> None:
        if time.monotonic() < self._not_before.get(file.path, 0.0):
            return
        try:
            if removal.remove(file):
                self._state.remove(file.path)
                self.removed += 1
                self._not_before.pop(file.path, None)
        except removal.Changed as error:
            self._state.set_state(file.path, "changed", str(error))
            self._report(file.path, f"changed: {error}")
        except OSError as error:
            self._report(file.path, f"The file cannot be removed: {error.strerror or error}")
            if len(self._not_before) > _MAX_REPORTED:
                self._not_before.clear()
            self._not_before[file.path] = time.monotonic() + _MAX_RETRY_S

    def _report(self, path: str, sentence: str) -> None:
        """Show a sentence about a file, unless it was shown before."""
        if (path, sentence) in self._reported:
            self._reported.move_to_end((path, sentence))
            return
        self._reported[path, sentence] = None
        if len(self._reported) > _MAX_REPORTED:
            self._reported.popitem(last=False)
        self._say(f"{path}: {sentence}" if path else sentence)
