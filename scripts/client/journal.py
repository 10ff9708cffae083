"""The resume file, which records the images that were sent and the responses of the service.

The file has one JSON object per line, and each line is synced to disk. A group of images gets a line before it is sent
(``begun``, with its Idempotency-Key) and another one after the service has responded (``answered``). The next run
therefore skips every image for which a response is recorded. It sends each group without a recorded response again,
with the same key.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from scripts.client.groups import Image, UsageError

_HEAD: Final = '{"shelfsight_upload": 2, '


class AlreadyRunning(Exception):
    """Another process is using the resume file of this upload."""


@dataclass(frozen=True, slots=True)
class PendingGroup:
    """A group of images that an earlier run may have sent, because it recorded the start, but no result.

    ``at`` is the time of the attempt in Unix seconds, and ``images`` describes the files as they were at this time.
    """

    at: float
    images: list[Image]


@dataclass(frozen=True, slots=True)
class AnsweredGroup:
    """A group of images that the service has accepted: ``batch_id`` (None if it is not known), and its images with their indexes."""

    batch_id: str | None
    accepted: list[tuple[int, Image]]


class Journal:
    """The resume file of one upload, which records the groups that were sent, so that a later run can send the rest.

    ``record_start`` and ``record_result`` are thread-safe.
    """

    def __init__(self, path: Path | None, url: str) -> None:
        """Create a journal for uploads to ``url``; if ``path`` is None, nothing is recorded."""
        self.path, self._url = path, url
        self.results: list[dict[str, Any]] = []
        """Results that earlier runs passed to ``record_result``."""
        self.pending: dict[str, PendingGroup] = {}
        """Groups of earlier runs for which no result is recorded, by Idempotency-Key."""
        self._answered: set[bytes] = set()
        self._lock = threading.Lock()
        self._empty = True
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Lock the resume file for this process and read it.

        A truncated line is ignored, because the earlier run may have been killed while it wrote this line.

        :raises AlreadyRunning: when another process uses the file.
        :raises UsageError: when the file is not a resume file, or belongs to an upload to another service.
        :raises OSError: when the file cannot be opened for writing.
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
        """Close the file, which releases its lock; remove the file if it is empty."""
        if self._file is not None:
            if not os.fstat(self._file.fileno()).st_size:
                self.remove()
            self._file.close()

    def is_answered(self, image: Image) -> bool:
        """Return whether an earlier run recorded a result for this image."""
        return image.identity in self._answered

    def answered_groups(self) -> Iterator[AnsweredGroup]:
        """Read the file again, and yield the groups of all runs of which the service has accepted images, as they were sent."""
        if self.path is None:
            return
        begun: dict[str, list[Image]] = {}
        with self.path.open(encoding="utf-8") as file:
            file.readline()
            for line in file:
                try:
                    row = json.loads(line)
                    if "begun" in row:
                        begun[row["begun"]] = _images(row)
                    else:
                        yield from _accepted_group(row, begun.pop(row["answered"]))
                except (ValueError, KeyError, TypeError):
                    continue  # the line is truncated

    def record_start(self, key: str, images: list[Image]) -> None:
        """Record that the group with the Idempotency-Key ``key`` is about to be sent."""
        rows = [[str(image.path.absolute()), image.size, image.mtime_ns, image.all_fields] for image in images]
        self._append({"begun": key, "at": time.time(), "pictures": rows})

    def record_result(self, key: str, result: dict[str, Any]) -> None:
        """Record the result of the group with the Idempotency-Key ``key``."""
        self._append({"answered": key, **result})

    def remove(self) -> None:
        """Remove the resume file. No other process can be using it, because this process has locked it."""
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
                file.truncate(0)  # the file is empty or its first line is truncated, so nothing was sent
                return
            self._empty = False
            if not head.startswith(_HEAD):
                raise UsageError(f"{path} is not a resume file of this version. Remove the file, or name another file with --resume.")
            url = json.loads(head)["url"]
            if url != self._url:
                raise UsageError(f"{path} belongs to an upload to {url}. Name another file with --resume, or use this URL as --url.")
            complete = True
            for line in file:
                complete = line.endswith("\n")
                self._load_line(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise UsageError(f"{path} is not a resume file. Name another file with --resume.") from None
        if not complete:
            file.write("\n")

    def _load_line(self, line: str) -> None:
        try:
            row = json.loads(line)
            if "begun" in row:
                self.pending[row["begun"]] = PendingGroup(row["at"], _images(row))
            else:
                group = self.pending.pop(row.pop("answered"))
                self._answered.update(image.identity for image in group.images)
                self.results.append(row)
        except (ValueError, KeyError, TypeError):
            return  # the line is truncated


def _images(row: dict[str, Any]) -> list[Image]:
    return [Image(Path(path), size, mtime_ns, fields) for path, size, mtime_ns, fields in row["pictures"]]


def _accepted_group(row: dict[str, Any], images: list[Image]) -> Iterator[AnsweredGroup]:
    if not row["accepted"]:
        return
    rejected = {str(Path(image["path"]).absolute()) for image in row["rejected"]}
    # Files of versions before this one have no indexes.
    refused = set(row.get("refused_indexes", [index for index, image in enumerate(images) if str(image.path) in rejected]))
    yield AnsweredGroup(row["batch_id"], [(index, image) for index, image in enumerate(images) if index not in refused])


def _open_locked(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise AlreadyRunning(f"The same upload is already running (another process uses {path}). Wait until it ends.") from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the process that held the lock has removed the file in the meantime
