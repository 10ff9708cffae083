"""The resume file: which images were sent and what the service answered, one JSON object a line, each synced to disk.

A group of images is recorded before it is sent (``begun``, with its Idempotency-Key) and after the service answered (``answered``).
So the next run skips each image that was answered, and sends groups without an answer again with the same key.
"""

import fcntl
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from scripts.client.groups import Image, UsageError

_HEAD: Final = '{"shelfsight_upload": 2, '


class AlreadyRunning(Exception):
    """Another process uses this resume file."""


@dataclass(frozen=True, slots=True)
class PendingGroup:
    """A group that an earlier run may have sent: the time (Unix seconds) and the images as they were."""

    at: float
    images: list[Image]


class Journal:
    """The resume file of one upload. ``record_start`` and ``record_result`` may be called from several threads."""

    def __init__(self, path: Path | None, url: str) -> None:
        """Set the file, None to record nothing, and the URL of the service."""
        self.path, self._url = path, url
        self.results: list[dict[str, Any]] = []
        """Results of earlier runs, as passed to ``record_result``."""
        self.pending: dict[str, PendingGroup] = {}
        """Groups of earlier runs without a result, by key."""
        self._answered: set[bytes] = set()
        self._lock = threading.Lock()
        self._empty = True
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Lock the file for this process and read it; a truncated line is ignored.

        :raises AlreadyRunning: when another process uses the file.
        :raises UsageError: when it is not a resume file, or that of another service.
        :raises OSError: when it cannot be written.
        """
        if self.path is not None:
            self._file = _open_locked(self.path)
            try:
                self._load(self.path, self._file)
            except BaseException:
                self._file.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Release the file; an empty one is removed."""
        if self._file is not None:
            if not os.fstat(self._file.fileno()).st_size:
                self.remove()
            self._file.close()

    def is_answered(self, image: Image) -> bool:
        """Return whether an earlier run has a result for this image."""
        return image.identity in self._answered

    def record_start(self, key: str, images: list[Image]) -> None:
        """Record that a group is about to be sent."""
        rows = [[str(image.path.absolute()), image.size, image.mtime_ns, image.fields] for image in images]
        self._append({"begun": key, "at": time.time(), "pictures": rows})

    def record_result(self, key: str, result: dict[str, Any]) -> None:
        """Record the result of a group."""
        self._append({"answered": key, **result})

    def remove(self) -> None:
        """Remove the file, which this process has locked."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _append(self, row: dict[str, Any]) -> None:
        if self._file is None:
            return
        with self._lock:
            if self._empty:
                self._file.write(_HEAD + f'"url": {json.dumps(self._url)}}}\n')
                self._empty = False
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _load(self, path: Path, file: IO[str]) -> None:
        file.seek(0)
        try:
            head = file.readline()
            if not head.endswith("\n") and _HEAD.startswith(head[: len(_HEAD)]):
                file.truncate(0)  # empty, or the first line is truncated: nothing was sent
                return
            self._empty = False
            if not head.startswith(_HEAD):
                raise UsageError(f"{path} is not a resume file of this version; name another file, or remove it.")
            url = json.loads(head)["url"]
            if url != self._url:
                raise UsageError(f"{path} belongs to an upload to {url}; name another file, or use that --url.")
            complete = True
            for line in file:
                complete = line.endswith("\n")
                self._load_line(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise UsageError(f"{path} is not a resume file; name another file.") from None
        if not complete:
            file.write("\n")

    def _load_line(self, line: str) -> None:
        try:
            row = json.loads(line)
            if "begun" in row:
                images = [Image(Path(path), size, mtime_ns, fields) for path, size, mtime_ns, fields in row["pictures"]]
                self.pending[row["begun"]] = PendingGroup(row["at"], images)
            else:
                group = self.pending.pop(row.pop("answered"))
                self._answered.update(image.identity for image in group.images)
                self.results.append(row)
        except (ValueError, KeyError, TypeError):
            return  # a truncated line


def _open_locked(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise AlreadyRunning(f"The same upload is already running (it uses {path}); wait until it ends.") from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the process that held the lock has removed the file in the meantime
