"""Read local files that other programs may be writing, replacing or removing at the same time."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file a path names, and in which version: device, inode, size in bytes, and modification time in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the identity in the status of a file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class NotRegular(OSError):
    """The path names something else than a regular file, such as a folder or a pipe."""


@contextmanager
def opened(path: Path | bytes, *, follow_links: bool = True) -> Iterator[IO[bytes]]:
    """Open a regular file for reading.

    :raises NotRegular: when it is no regular file.
    :raises OSError: when it cannot be opened; also when it is a link and ``follow_links`` is false.
    """
    # Without O_NONBLOCK, opening a pipe would block. The file may have become one since it was found.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotRegular(None, "It is not a regular file.")
        yield file


def digest(path: Path | bytes, *, follow_links: bool = True) -> tuple[Identity, str]:
    """Return the identity of a file, and its SHA-256 digest in hexadecimal.

    The digest is computed from at most as many bytes as the file has now, so a file that grows without end ends, too.

    :raises OSError: when the file cannot be read, or is no regular file.
    """
    with opened(path, follow_links=follow_links) as file:
        identity = Identity.of(os.fstat(file.fileno()))
        computed, left = hashlib.sha256(), identity.size
        while left and (piece := file.read(min(left, 1 << 20))):
            computed.update(piece)
            left -= len(piece)
    return identity, computed.hexdigest()
