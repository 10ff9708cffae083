"""An implementation of the blob store that uses a local folder."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from shared.storage.blobs import BlobMissing, BlobStat, Part
from shared.storage.disk_errors import translate_disk_errors
from shared.storage.durable_files import DurableWriter, sync_folder

TEMP = "tmp"
LIVE = "live"


class LocalBlobs:
    """Stores blobs as files in a local folder.

    Each file is written to ``tmp/``, synced, and renamed to its final path, and then its folder is synced. Therefore, a
    crash leaves no partial file under a key.
    """

    def __init__(self, root: Path) -> None:
        """Use the folder ``root``. The first write creates it if it does not exist."""
        self._root = root.absolute()
        self._temp = self._root / TEMP
        self._writer = DurableWriter()

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """See ``BlobStore``."""
        self.write_many([(key, parts)])

    def write_many(self, items: Sequence[tuple[str, Sequence[Part]]]) -> None:
        """See ``BlobStore``. A call costs one ``fdatasync`` per file and one ``fsync`` per folder."""
        paths = [self._path(key) for key, _ in items]
        temps = [self._temp / uuid4().hex for _ in items]
        folders: set[Path] = set()
        with translate_disk_errors(self._temp):
            self._temp.mkdir(parents=True, exist_ok=True)
            try:
                self._writer.write_many([(temp, parts) for temp, (_, parts) in zip(temps, items, strict=True)])
                parent = None
                for temp, path in zip(temps, paths, strict=True):
                    if path.parent != parent:  # create it just before use, because a concurrent deletion can remove it
                        parent = path.parent
                        folders |= self._create_folder(parent)
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
        with file, translate_disk_errors(self._path(key)):
            if length is None:
                file.seek(offset)
                return file.read()
            return os.pread(file.fileno(), length, offset)

    def open(self, key: str) -> tuple[BinaryIO, BlobStat]:
        """See ``BlobStore``."""
        path = self._path(key)
        with translate_disk_errors(path):
            try:
                file = path.open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise BlobMissing(key) from error
            return file, _stat(key, os.fstat(file.fileno()))

    def stat(self, key: str) -> BlobStat | None:
        """See ``BlobStore``."""
        path = self._path(key)
        with translate_disk_errors(path):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _stat(key, found)

    def delete(self, key: str) -> None:
        """See ``BlobStore``."""
        path = self._path(key)
        with translate_disk_errors(path), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def delete_tree(self, prefix: str) -> None:
        """See ``BlobStore``.

        Before its files are deleted, the whole tree is made unreachable with one rename. Therefore, a concurrent write
        cannot leave the tree half deleted.
        """
        tree = self._path(prefix)
        with translate_disk_errors(tree), suppress(FileNotFoundError):
            if tree.is_dir() and not tree.is_symlink():
                shutil.rmtree(self._move_to_temp(tree))

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """See ``BlobStore``."""
        yield from self._walk(self._path(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        """See ``BlobStore``."""
        path = self._path(prefix)
        with translate_disk_errors(path), suppress(FileNotFoundError), os.scandir(path) as entries:
            yield from (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def publish(self, folder: str, version: str) -> None:
        """See ``BlobStore``. ``live`` is a relative symbolic link.

        The link is created under a temporary name and then renamed. Nothing is synced. The target is part of the
        temporary name. If a link with this name exists already (a crash has left it, or another process is about to
        rename it), it has the same target and is used instead of a new link.
        """
        parent = self._path(f"{folder}/{version}").parent
        link, temp = parent / LIVE, parent / f"{LIVE}.{version}"
        with translate_disk_errors(parent), suppress(FileNotFoundError, NotADirectoryError):  # folder deleted, or link already renamed
            if link.is_symlink() and str(link.readlink()) == version:
                return
            with suppress(FileExistsError):
                temp.symlink_to(version)
            temp.replace(link)

    def free_bytes(self) -> int:
        """See ``BlobStore``. The result is the space that is available to an unprivileged user."""
        with translate_disk_errors(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _path(self, key: str) -> Path:
        names = key.split("/")
        if any(name in {"", ".", ".."} or "\0" in name for name in names):
            msg = f"not a blob key: {key!r}"
            raise ValueError(msg)
        return self._root.joinpath(*names)

    def _walk(self, folder: Path) -> Iterator[BlobStat]:
        beside_root = len(str(self._root)) + 1
        with translate_disk_errors(folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):  # skip links, which would list a blob twice
                    with suppress(FileNotFoundError):
                        yield _stat(entry.path[beside_root:], entry.stat(follow_symlinks=False))

    def _move_to_temp(self, tree: Path) -> Path:
        """Move a folder into ``tmp/`` and return its new path. If the move fails (full disk), return the old path."""
        target = self._temp / uuid4().hex
        with suppress(OSError):
            self._temp.mkdir(exist_ok=True)
            return tree.rename(target)
        return tree

    def _create_folder(self, folder: Path) -> set[Path]:
        """Create a folder and its missing parents, and return all folders that the caller must sync.

        These are the folder itself and every folder in which this method has created a subfolder.
        """
        changed = {folder}
        while not folder.is_dir():
            changed.add(folder.parent)
            folder = folder.parent
        for path in sorted(changed):
            path.mkdir(exist_ok=True)
        return changed


def _stat(key: str, found: os.stat_result) -> BlobStat:
    return BlobStat(key, found.st_size, found.st_mtime_ns // 1_000_000_000)
