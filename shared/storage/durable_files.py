"""Writes whole files so that they survive a power failure, either through the page cache or with direct I/O."""

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from shared.allocator import uncleared_buffer
from shared.storage.blobs import Part

_IOV_MAX: Final = 512
_OPEN_MAX: Final = 64
"""Maximum number of files that are flushed to the disk together."""
_DIRECT_FROM: Final = 1 << 20
_DIRECT_BYTES: Final = 2 << 20
"""Maximum number of bytes that one call writes without the page cache. Fewer calls take less time, because the disk
processes the parts of a call at the same time. But a larger buffer would increase the memory of an upload (measured)."""
_CACHED_BELOW: Final = 64 << 10
"""Size in bytes below which a file stays in the page cache. Such files, for example thumbnails, are usually requested
soon. Most larger files are never read."""
_BLOCK: Final = 4096
_NOT_DIRECT: Final = {errno.EINVAL, errno.EOPNOTSUPP}
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_MODE: Final = 0o640


class DurableWriter:
    """Writes files durably: when a call returns, all bytes are on the disk. Thread-safe.

    Files of 1 MB and more bypass the page cache if the file system supports it (O_DIRECT). The cache would not help,
    because the files must reach the disk at once. Copying them into new pages of the cache would take three to fifteen
    times the CPU time of the write itself (measured). All other files are written through the page cache. Those of
    64 KB and more are removed from it as soon as they are on the disk. Thus their pages can be reused for the next
    files, and frequently read files stay in the cache.
    """

    def write_many(self, files: Sequence[tuple[Path, Sequence[Part]]]) -> None:
        """Write the concatenated parts of each item to its path, replacing an existing file.

        Files that are written through the page cache are flushed together. This takes two thirds of the time, and half
        as many waits for the disk, as flushing each file before the next one is written.

        :raises OSError: when the disk reports an error. Any of the files may then exist, complete or in part.
        """
        for at in range(0, len(files), _OPEN_MAX):
            with ExitStack() as opened:
                through = []
                for path, parts in files[at : at + _OPEN_MAX]:
                    views = [memoryview(part).cast("B") for part in parts if len(part)]
                    size = sum(map(len, views))
                    if size < _DIRECT_FROM or not _write_direct(path, views, size):
                        handle = os.open(path, _FLAGS, _MODE)
                        opened.callback(os.close, handle)
                        _write_cached(handle, views)
                        if size >= _CACHED_BELOW:
                            _drop_from_cache(handle)  # this also starts writing the dirty pages to the disk
                        through.append((handle, size))
                for handle, size in through:
                    os.fdatasync(handle)
                    if size >= _CACHED_BELOW:
                        _drop_from_cache(handle)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that they survive a power failure.

    If the folder does not exist, the call has no effect.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # the folder was deleted in the meantime
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_cached(handle: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(handle, views[:_IOV_MAX])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def _drop_from_cache(handle: int) -> None:
    """Advise the kernel to write a file's dirty pages and to remove its pages from the cache (posix_fadvise(2))."""
    with suppress(OSError):  # the file system does not support the advice; the data is safe without it
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _write_direct(path: Path, views: list[memoryview], size: int) -> bool:
    """Write a file with O_DIRECT, one full buffer at a time. Return False if the file system does not support it.

    The last buffer is padded to a multiple of the block size, and the file is then truncated to its actual length.
    """
    try:
        handle = os.open(path, _FLAGS | os.O_DIRECT, _MODE)
    except OSError as error:
        if error.errno in _NOT_DIRECT:
            return False
        raise
    try:
        with _aligned_buffer(min(size, _DIRECT_BYTES)) as buffer:
            filled = 0
            for view in views:
                rest = view
                while rest:
                    head = rest[: len(buffer) - filled]
                    buffer[filled : filled + len(head)] = head
                    filled += len(head)
                    rest = rest[len(head) :]
                    if filled == len(buffer):
                        _write_all(handle, buffer)
                        filled = 0
            if filled:
                _write_all(handle, buffer[: _whole_blocks(filled)])
        os.ftruncate(handle, size)
        os.fdatasync(handle)
    except OSError as error:
        if error.errno in _NOT_DIRECT:
            return False
        raise
    finally:
        os.close(handle)
    return True


def _aligned_buffer(size: int) -> memoryview:
    """Return a buffer of at least ``size`` bytes that begins at a block, as O_DIRECT requires, and has whole blocks."""
    size = _whole_blocks(size)
    view = uncleared_buffer(size + _BLOCK).getbuffer()
    begin = -ctypes.addressof(ctypes.c_char.from_buffer(view)) % _BLOCK
    return view[begin : begin + size]


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]
