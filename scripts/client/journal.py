"""The resume file: which pictures were sent and what was answered, one JSON line each, on disk before it counts.

A group of pictures is written down before it is sent (``begun``, with its Idempotency-Key) and when it was answered
(``answered``). So the next run knows each picture that was answered, and sends what was begun again, under the same key.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from scripts.client.groups import Picture, UsageError

_HEAD: Final = '{"shelfsight_upload": 2, '


class Busy(Exception):
    """Another upload has this resume file."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A group that was sent, perhaps: when (Unix seconds), and exactly what."""

    at: float
    pictures: list[Picture]


class Journal:
    """What became of the pictures of one upload. Groups may be begun and answered from several threads."""

    def __init__(self, path: Path | None, url: str) -> None:
        """Name the file, or none to keep nothing, and the service that it is about."""
        self.path, self._url = path, url
        self.answers: list[dict[str, Any]] = []
        """What earlier runs were answered, as given to ``answer``."""
        self.pending: dict[str, Begun] = {}
        """Groups that earlier runs began and that were not answered, by key."""
        self._answered: set[bytes] = set()
        self._lock = threading.Lock()
        self._empty = True
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Take the file for this process and read what is there; a line that was cut short counts for nothing.

        :raises Busy: another process has it. :raises UsageError: it is no resume file, or another service's.
        :raises OSError: it cannot be written.
        """
        if self.path is not None:
            self._file = _take(self.path)
            try:
                self._load(self.path, self._file)
            except BaseException:
                self._file.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give the file back; one in which nothing stands is removed."""
        if self._file is not None:
            if not os.fstat(self._file.fileno()).st_size:
                self.remove()
            self._file.close()

    def is_answered(self, picture: Picture) -> bool:
        """Tell whether an earlier run was answered about this picture."""
        return picture.identity in self._answered

    def begin(self, key: str, pictures: list[Picture]) -> None:
        """Write down what is about to be sent."""
        rows = [[str(one.path.absolute()), one.size, one.mtime_ns, one.said] for one in pictures]
        self._append({"begun": key, "at": time.time(), "pictures": rows})

    def answer(self, key: str, row: dict[str, Any]) -> None:
        """Write down what was answered."""
        self._append({"answered": key, **row})

    def remove(self) -> None:
        """Remove the file, which this process has."""
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
                file.truncate(0)  # empty, or the first line was cut short: nothing was sent
                return
            self._empty = False
            if not head.startswith(_HEAD):
                raise UsageError(f"{path} is no resume file of this version; name another one, or remove it.")
            url = json.loads(head)["url"]
            if url != self._url:
                raise UsageError(f"{path} belongs to an upload to {url}.")
            ended = True
            for line in file:
                ended = line.endswith("\n")
                self._read(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise UsageError(f"{path} is no resume file.") from None
        if not ended:
            file.write("\n")

    def _read(self, line: str) -> None:
        try:
            row = json.loads(line)
            if "begun" in row:
                pictures = [Picture(Path(path), size, mtime_ns, said) for path, size, mtime_ns, said in row["pictures"]]
                self.pending[row["begun"]] = Begun(row["at"], pictures)
            else:
                self._keep(self.pending.pop(row.pop("answered")).pictures)
                self.answers.append(row)
        except (ValueError, KeyError, TypeError):
            return  # cut short

    def _keep(self, pictures: Iterable[Picture]) -> None:
        self._answered.update(picture.identity for picture in pictures)


def _take(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Busy(f"The same upload is running already (it has {path}).") from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # whoever had it has finished meanwhile and removed it
