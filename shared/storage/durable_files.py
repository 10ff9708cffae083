"""Bytes that survive a power cut: whole files onto a local disk, through the page cache or past it."""

import errno
import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

Part = bytes | memoryview

_IOV_MAX: Final = 512
_OPEN_MAX: Final = 64
"""Of the files that are on their way to the disk together."""
_DIRECT_FROM: Final = 1 << 20
_CACHED_BELOW: Final = 64 << 10
"""Thumbnails are looked at as soon as they stand. Of what is larger most is never read, and what is comes from the disk the first time."""
_BLOCK: Final = 4096
_NOT_DIRECT: Final = {errno.EINVAL, errno.EOPNOTSUPP}
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_MODE: Final = 0o640


class DurableWriter:
    """Writes files of which every byte is on the disk when the call returns. For any number of threads.

    Files of 1 MB and more go past the page cache where the file system can do that (O_DIRECT). They have to reach the disk at
    once anyway, and the copy into fresh pages costs three to fifteen times the CPU of the write itself (measured). Those of 64 KB and
    more leave the cache when they are on the disk: their pages take the next ones, and what is read again and again stays.
    """

    def __init__(self) -> None:
        """Begin without buffers."""
        self._aligned: list[mmap.mmap] = []  # one for each thread that writes at the same time; kept, for fresh pages are dear

    def write_many(self, files: Sequence[tuple[Path, Sequence[Part]]]) -> None:
        """Write the parts of each, one after the other, as one file, replacing what is there.

        What goes through the cache, unless it is small, is on its way to the disk together: two thirds of the time and half the waits of one after the other.

        :raises OSError: what the disk says; any of the files, or a part of it, may be there.
        """
        for at in range(0, len(files), _OPEN_MAX):
            with ExitStack() as opened:
                through = []
                for path, parts in files[at : at + _OPEN_MAX]:
                    views = [memoryview(part).cast("B") for part in parts if len(part)]
                    size = sum(map(len, views))
                    if size < _DIRECT_FROM or not self._past_cache(path, views):
                        handle = os.open(path, _FLAGS, _MODE)
                        opened.callback(os.close, handle)
                        _through_cache(handle, views)
                        if size >= _CACHED_BELOW:
                            _let_go(handle)  # what is not on the disk begins its way there
                        through.append((handle, size))
                for handle, size in through:
                    os.fdatasync(handle)
                    if size >= _CACHED_BELOW:
                        _let_go(handle)

    def _past_cache(self, path: Path, views: list[memoryview]) -> bool:
        try:
            buffer = self._aligned.pop()
        except IndexError:
            buffer = mmap.mmap(-1, _DIRECT_FROM)  # begins on a page, as O_DIRECT asks
        try:
            _past_cache(path, views, buffer)
        except OSError as error:
            if error.errno in _NOT_DIRECT:
                return False
            raise
        finally:
            self._aligned.append(buffer)
        return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut; fine if it is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # deleted meanwhile: nothing left to keep
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _through_cache(handle: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(handle, views[:_IOV_MAX])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def _let_go(handle: int) -> None:
    """Ask the kernel to take a file's pages out of its cache, and to write first what the disk has not; it need not (posix_fadvise(2))."""
    with suppress(OSError):  # a file system that knows no such advice keeps the bytes as well
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _past_cache(path: Path, views: list[memoryview], buffer: mmap.mmap) -> None:
    """Write whole buffers; the last is padded to a block, and the file cut to its length."""
    handle = os.open(path, _FLAGS | os.O_DIRECT, _MODE)
    try:
        filled = 0
        for view in views:
            rest = view
            while rest:
                head = rest[: len(buffer) - filled]
                buffer[filled : filled + len(head)] = head
                filled += len(head)
                rest = rest[len(head) :]
                if filled == len(buffer):
                    _write_all(handle, buffer, filled)
                    filled = 0
        if filled:
            _write_all(handle, buffer, -(-filled // _BLOCK) * _BLOCK)
        os.ftruncate(handle, sum(map(len, views)))
        os.fdatasync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, buffer: mmap.mmap, length: int) -> None:
    with memoryview(buffer) as whole, whole[:length] as view:
        done = 0
        while done < length:
            with view[done:] as rest:
                done += os.write(handle, rest)
