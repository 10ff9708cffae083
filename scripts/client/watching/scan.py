"""Find the images in a watched folder that are complete.

A file counts as complete when it has had the same inode, size and modification time for some seconds. Nothing else is known
about the program that writes it. So a file that was renamed into the folder waits as long as one that was copied, because its
modification time says nothing if the clock of a file server differs.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from scripts.client.files import IMAGE_SUFFIXES, is_system_folder
from scripts.client.local_files import Identity

MAX_CANDIDATES: Final = 10_000
"""How many files are observed at the same time; further ones wait until some of these have been sent."""
_PARTIAL: Final = frozenset({".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".uploading", ".incomplete"})
_UNFINISHED_S: Final = 600.0

Report = Callable[[str, str], None]
"""Called with a path and a sentence about it. The caller shows the same sentence once."""


@dataclass(slots=True)
class _Candidate:
    identity: Identity
    first_seen: float
    since: float
    number: int


def find_images(folder: Path, report: Report) -> Iterator[tuple[str, Identity]]:
    """Yield the path and the identity of each image in a folder and its subfolders, in no order.

    Left out are links, hidden files and folders, folders of file servers and operating systems, and files whose name is that of
    an unfinished copy, such as ``a.jpg.part`` or ``a.part.jpg``. One folder is open at a time.

    :param report: called for each subfolder that cannot be read, and each file whose status cannot be read.
    :raises OSError: when the folder itself cannot be read.
    """
    folders = [str(folder)]
    while folders:
        path = folders.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not is_system_folder(entry.name):
                            folders.append(entry.path)
                    elif _has_name_of_image(entry.name):
                        yield from _status(entry, report)
        except FileNotFoundError:
            if path == str(folder):
                raise  # a subfolder was removed while the folder was being read
        except OSError as error:
            if path == str(folder):
                raise
            report(path, f"The folder cannot be read: {error.strerror or error}")


class Candidates:
    """The files that were seen, but not sent yet. A pass of the folder calls ``begin``, ``is_complete`` for each file, and ``end``."""

    def __init__(self, settle_s: float, report: Report) -> None:
        """Create an empty collection.

        :param settle_s: for how many seconds a file must stay as it is.
        """
        self._settle_s, self._report = settle_s, report
        self._found: dict[str, _Candidate] = {}
        self._pass = 0

    def __len__(self) -> int:
        return len(self._found)

    def begin(self) -> None:
        """Begin a pass."""
        self._pass += 1

    def is_complete(self, path: str, identity: Identity, now: float) -> bool:
        """Observe a file, and return whether it has been as it is for long enough.

        :param now: time on the monotonic clock, in seconds.
        """
        candidate = self._found.get(path)
        if candidate is None:
            if len(self._found) < MAX_CANDIDATES:
                self._found[path] = _Candidate(identity, now, now, self._pass)
            return False
        candidate.number = self._pass
        if candidate.identity != identity:
            candidate.identity, candidate.since = identity, now
            if now - candidate.first_seen > _UNFINISHED_S:
                self._report(path, "The file has been changing for ten minutes, so it is not uploaded yet.")
            return False
        return now - candidate.since >= self._settle_s

    def postpone(self, path: str, until: float) -> None:
        """Regard a file as incomplete until a time, because it cannot be read."""
        if path in self._found:
            self._found[path].since = until - self._settle_s

    def remove(self, path: str) -> None:
        """Forget a file, because it was sent or need not be."""
        self._found.pop(path, None)

    def end(self) -> None:
        """End a pass: forget the files that it has not found."""
        self._found = {path: found for path, found in self._found.items() if found.number == self._pass}


def _has_name_of_image(name: str) -> bool:
    path = PurePath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith((".", "~")) and PurePath(path.stem).suffix.lower() not in _PARTIAL


def _status(entry: "os.DirEntry[str]", report: Report) -> Iterator[tuple[str, Identity]]:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        report(entry.path, f"The file cannot be read: {error.strerror or error}")
        return
    if stat.S_ISREG(status.st_mode):
        yield entry.path, Identity.of(status)
