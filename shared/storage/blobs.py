"""The protocol of the blob store. ``tests/contracts/blob_store.py`` tests every implementation against it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

Part = bytes | memoryview


class BlobMissing(KeyError):
    """There is no blob with this key."""


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Metadata of a blob: its key, its size in bytes, and its modification time.

    ``modified`` is the modification time in Unix seconds, rounded down to a whole second as in HTTP dates.
    """

    key: str
    size: int
    modified: int


class BlobStore(Protocol):
    """Stores blobs (byte strings) under keys.

    A key is a relative path that consists of plain names. A blob is either complete or absent; no reader ever sees a
    partial blob. Every method raises ``DiskFull`` when there is no disk space, and ``StoreAway``
    (``blobs_unavailable``, or ``blobs_misconfigured`` if an operator must act) for any other failure.
    """

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """Store the concatenated parts as one blob. After the call has returned, the blob survives a power failure."""

    def write_many(self, items: Sequence[tuple[str, Sequence[Part]]]) -> None:
        """Store several blobs.

        After the call has returned, all of them survive a power failure. After an error, any of them may exist.
        """

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return up to ``length`` bytes of a blob from ``offset`` on; by default, return all bytes.

        If the blob ends earlier, fewer bytes are returned.

        :raises BlobMissing: when there is no blob with this key.
        """

    def open(self, key: str) -> tuple[BinaryIO, BlobStat]:
        """Open a blob for reading, and return the open file with the metadata of the blob.

        The file and the metadata belong to the same version of the blob, even if the blob is overwritten in the
        meantime. The caller must close the file.

        :raises BlobMissing: when there is no blob with this key.
        """

    def stat(self, key: str) -> BlobStat | None:
        """Return the metadata of a blob, or None if there is no blob with this key."""

    def delete(self, key: str) -> None:
        """Delete a blob if it exists."""

    def delete_tree(self, prefix: str) -> None:
        """Delete a folder and everything in it, if it exists."""

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Iterate over all blobs in a folder and its subfolders, in no particular order.

        The folder is read while the caller iterates, never as a whole, so a folder may have any number of blobs. The
        caller may pause for long. Blobs that are written or deleted during the iteration may or may not be included.
        """

    def folders(self, prefix: str) -> Iterator[str]:
        """Iterate over the names of the direct subfolders of a folder. It is read as by ``list``."""

    def publish(self, folder: str, version: str) -> None:
        """Make ``folder/version`` available as ``folder/live`` to file servers that read the blob store directly.

        If the folder is missing, the call has no effect. The other methods treat ``live`` neither as a blob nor as a
        folder, and ``live`` need not survive a power failure. The same version can be published repeatedly, at a low
        cost. In a blob store that no file server reads, this method need not do anything.

        If calls with different versions overlap, any of the versions can become ``live``. Therefore, the caller must find
        out afterwards whether its version is still the right one, and must keep the folder of a version for as long as a
        late call can publish it.
        """

    def free_bytes(self) -> int:
        """Return the free disk space in bytes."""
