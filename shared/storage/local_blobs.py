"""Where bytes lie: the seam, and the local folder behind it."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from shared.errors import DiskFull, StoreAway
from shared.storage.durable_files import DurableWriter, Part, sync_folder

TEMP = "tmp"
LIVE = "live"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class BlobMissing(KeyError):
    """No blob has this key."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A blob's key, its size in bytes and when it was written: whole Unix seconds, cut and not rounded, as HTTP says it."""

    key: str
    size: int
    modified: int


class BlobStore(Protocol):
    """What the service asks of a place for bytes. Every implementation passes ``tests/contracts/blob_store.py``.

    Keys are relative paths of plain names. Errors: ``BlobMissing``; ``DiskFull`` when there is no room; ``StoreAway``
    (``blobs_unavailable``) for anything else. A blob is whole or not there: no reader ever sees half of one.
    """

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """Keep the parts, one after the other, as one blob. On return they survive a power cut."""

    def write_many(self, items: Sequence[tuple[str, Sequence[Part]]]) -> None:
        """Keep several blobs; on return all of them survive a power cut. After an error any of them may be there."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Give ``length`` bytes from ``offset`` on (fewer at the end), or all."""

    def open(self, key: str) -> tuple[BinaryIO, BlobStat]:
        """Open a blob for reading, and say what was opened, whatever is written under its key meanwhile; the caller closes it."""

    def stat(self, key: str) -> BlobStat | None:
        """Say how large and how old a blob is, or None."""

    def delete(self, key: str) -> None:
        """Remove a blob; fine if it is not there."""

    def delete_tree(self, prefix: str) -> None:
        """Remove everything under a folder, and the folder; fine if it is not there."""

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Walk through all blobs under a folder, in no order."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Name the folders right under a folder."""

    def publish(self, folder: str, version: str) -> None:
        """Let those who read the store without us find ``folder/version`` as ``folder/live``; fine if the folder is not there.

        It is no blob and no folder to any other method, and need not survive a power cut. Again with the same version is
        fine, and cheap; a store that nobody else reads does nothing. Calls with different versions are not ordered here: a version
        is published once its result stands, and no other may come to stand before what was published for it is taken away.
        """

    def free_bytes(self) -> int:
        """Say how many bytes there is room for."""


class LocalBlobs:
    """Blobs as files: written to ``tmp/`` first, synced, renamed, and the folder synced, so a crash leaves no half file."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, which is made on first use when missing."""
        self._root = root.absolute()
        self._temp = self._root / TEMP
        self._writer = DurableWriter()

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """See ``BlobStore``."""
        self.write_many([(key, parts)])

    def write_many(self, items: Sequence[tuple[str, Sequence[Part]]]) -> None:
        """See ``BlobStore``. One ``fdatasync`` a file and one ``fsync`` a folder."""
        paths = [self._path(key) for key, _ in items]
        temps = [self._temp / uuid4().hex for _ in items]
        folders: set[Path] = set()
        with _disk_errors():
            self._temp.mkdir(parents=True, exist_ok=True)
            try:
                self._writer.write_many([(temp, parts) for temp, (_, parts) in zip(temps, items, strict=True)])
                made = None
                for temp, path in zip(temps, paths, strict=True):
                    if path.parent != made:  # not all of them at first: a deletion may take one away until it is used
                        made = path.parent
                        folders |= self._make_folder(made)
                    temp.replace(path)
            except BaseException:
                for temp in temps:
                    with suppress(OSError):
                        temp.unlink(missing_ok=True)
                raise
            for folder in folders:
                sync_folder(folder)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See ``BlobStore``."""
        file, _ = self.open(key)
        with file, _disk_errors():
            if length is None:
                file.seek(offset)
                return file.read()
            return os.pread(file.fileno(), length, offset)

    def open(self, key: str) -> tuple[BinaryIO, BlobStat]:
        """See ``BlobStore``."""
        with _disk_errors():
            try:
                file = self._path(key).open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise BlobMissing(key) from error
            return file, _stat(key, os.fstat(file.fileno()))

    def stat(self, key: str) -> BlobStat | None:
        """See ``BlobStore``."""
        with _disk_errors():
            try:
                found = self._path(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _stat(key, found)

    def delete(self, key: str) -> None:
        """See ``BlobStore``."""
        with _disk_errors(), suppress(FileNotFoundError, NotADirectoryError):
            self._path(key).unlink()

    def delete_tree(self, prefix: str) -> None:
        """See ``BlobStore``. One rename takes the whole tree out of everybody's reach, so no late write ends that halfway."""
        tree = self._path(prefix)
        with _disk_errors(), suppress(FileNotFoundError):
            if tree.is_dir() and not tree.is_symlink():
                shutil.rmtree(self._out_of_reach(tree))

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """See ``BlobStore``."""
        pending = [self._path(prefix)]
        while pending:
            with _disk_errors(), suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    if not entry.is_file(follow_symlinks=False):  # a link would show a blob twice
                        continue
                    with suppress(FileNotFoundError):
                        yield _stat(str(Path(entry.path).relative_to(self._root)), entry.stat(follow_symlinks=False))

    def folders(self, prefix: str) -> Iterator[str]:
        """See ``BlobStore``."""
        with _disk_errors(), suppress(FileNotFoundError), os.scandir(self._path(prefix)) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            yield from names

    def publish(self, folder: str, version: str) -> None:
        """See ``BlobStore``: a relative link, made beside its place and renamed. It makes no folder and syncs nothing.

        What the temporary link says is in its name, so one that a crash left, or that another process is about to rename, is
        as good as our own.
        """
        place = self._path(f"{folder}/{version}").parent
        link, temp = place / LIVE, place / f"{LIVE}.{version}"
        with _disk_errors(), suppress(FileNotFoundError, NotADirectoryError):  # deleted, or renamed by another process
            if link.is_symlink() and str(link.readlink()) == version:
                return
            with suppress(FileExistsError):
                temp.symlink_to(version)
            temp.replace(link)

    def free_bytes(self) -> int:
        """See ``BlobStore``: what an ordinary user may still write."""
        with _disk_errors():
            self._root.mkdir(parents=True, exist_ok=True)
            found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _path(self, key: str) -> Path:
        names = key.split("/")
        if any(name in {"", ".", ".."} or "\0" in name for name in names):
            msg = f"not a blob key: {key!r}"
            raise ValueError(msg)
        return self._root.joinpath(*names)

    def _out_of_reach(self, tree: Path) -> Path:
        """Move a folder away at one stroke; give where it lies now. Where it cannot be moved (a full disk) it stays."""
        away = self._temp / uuid4().hex
        with suppress(OSError):
            self._temp.mkdir(exist_ok=True)
            return tree.rename(away)
        return tree

    def _make_folder(self, folder: Path) -> set[Path]:
        """Make a folder and its parents; give every folder whose entries changed or will."""
        changed = {folder}
        while not folder.is_dir():
            changed.add(folder.parent)
            folder = folder.parent
        for made in sorted(changed):
            made.mkdir(exist_ok=True)
        return changed


def _stat(key: str, found: os.stat_result) -> BlobStat:
    return BlobStat(key, found.st_size, found.st_mtime_ns // 1_000_000_000)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull("There is no room left for files.", retry_after=30) from error
        raise StoreAway("The file store does not answer; try again.", code="blobs_unavailable", retry_after=5) from error
