"""Check whether the whole blob store works, after an error in one of its blobs."""

from typing import Final

from shared.errors import StoreAway
from shared.storage.blob_keys import PROBE
from shared.storage.blobs import BlobMissing, BlobStore
from shared.storage.identity import StoreIdentity

_CONTENT: Final = bytes(64 * 1024)
"""A local file of this size does not stay in the page cache (``DurableWriter``), so it is read from the disk. Several
processes can write it at the same time, because it is always the same."""


def check_store(identity: StoreIdentity, blobs: BlobStore) -> None:
    """Check that the blob store belongs to the database, and that a blob can be written and read.

    If the call returns, an error that another blob has caused does not affect all blobs.

    :raises Environment: when the blob store does not work, or MongoDB does not respond.
    """
    identity.check()
    blobs.write(PROBE, [_CONTENT])
    try:
        found = blobs.read(PROBE, 0, len(_CONTENT))
    except BlobMissing:
        found = b""
    if found != _CONTENT:
        raise StoreAway("The blob store does not return what was written; retry later.", code="blobs_unavailable", retry_after=5)
