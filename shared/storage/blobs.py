"""The blob store's protocol. ``tests/contracts/blob_store.py`` holds every implementation to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

Part = bytes | memoryview


class BlobMissing(KeyError):
    """No blob has this key."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A blob's key, its size in bytes and its modification time: whole Unix seconds, truncated as in HTTP dates."""

    key: str
    size: int
    modified: int


class BlobStore(Protocol):
    """Stores bytes under keys: relative paths of plain names. A blob is complete or absent: no reader ever sees part of one.

    Every method raises ``DiskFull`` when there is no space, and ``StoreAway`` (``blobs_unavailable``) for any other failure.
    """

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """Store the concatenated parts as one blob. When the call returns, the blob survives a power failure."""

    def write_many(self, items: Sequence[tuple[str, Sequence[Part]]]) -> None:
        """Store several blobs. When the call returns, all survive a power failure; after an error any of them may exist."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from ``offset`` on (fewer at the end), or all.

        :raises BlobMissing: no such blob.
        """

    def open(self, key: str) -> tuple[BinaryIO, BlobStat]:
        """Open a blob for reading. File and stat describe the same version, even if the key is overwritten meanwhile.

        The caller closes the file.

        :raises BlobMissing: no such blob.
        """

    def stat(self, key: str) -> BlobStat | None:
        """Return size and modification time, or None when there is no such blob."""

    def delete(self, key: str) -> None:
        """Delete a blob if it exists."""

    def delete_tree(self, prefix: str) -> None:
        """Delete a folder and everything in it, if it exists."""

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Iterate over all blobs under a folder, in no particular order."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Iterate over the names of the direct subfolders of a folder."""

    def publish(self, folder: str, version: str) -> None:
        """Make ``folder/version`` visible as ``folder/live`` to file servers that read the store themselves; no effect if the folder is missing.

        ``live`` is neither a blob nor a folder to any other method, and need not survive a power failure. Publishing the same version again is
        allowed, and cheap; a store that no file server reads does nothing. Calls with different versions are not ordered here: publish a version
        only after its result is final, and make no other version final before the published one has been withdrawn.
        """

    def free_bytes(self) -> int:
        """Return the free space in bytes."""
