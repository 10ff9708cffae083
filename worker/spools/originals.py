"""Check and restore single originals in the blob store. An image is given by its document."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from shared.bootstrap import Stores
from shared.errors import StoreAway
from shared.ids import batch_of
from shared.ledger import settlement
from shared.storage.blob_keys import original_key, spool_key
from shared.storage.blobs import BlobMissing, BlobStore
from shared.storage.mongo import Document

_READ_BYTES: Final = 1024 * 1024
T = TypeVar("T")


def key(image: Document) -> str:
    """Return the key of an image's original."""
    return original_key(image["_id"], image["work"]["ext"])


def contains(blobs: BlobStore, image: Document, data: bytes) -> bool:
    """Return whether the original is stored, can be read, and consists of exactly these bytes."""
    with suppress(BlobMissing, StoreAway):  # deleted in the meantime, or unreadable
        return has_right_size(blobs, image) and blobs.read(key(image), 0, len(data)) == data
    return False


def has_right_size(blobs: BlobStore, image: Document) -> bool:
    """Return whether the original is stored with the length that was accepted. Its bytes are not read."""
    found = blobs.stat(key(image))
    return found is not None and found.size == image["file_size"]


def is_intact(blobs: BlobStore, image: Document) -> bool:
    """Return whether the original is stored with the accepted length and digest. Its bytes are read and hashed."""
    return has_right_size(blobs, image) and _digest(blobs, key(image)) == image["sha256"]


def read_from_spool(blobs: BlobStore, image: Document) -> bytes | None:
    """Return the bytes of an original from the spool, or None if they are missing or damaged there."""
    try:
        data = blobs.read(spool_key(batch_of(image["_id"])), image["work"]["offset"], image["file_size"])
    except BlobMissing:
        return None
    return data if hashlib.sha256(data).hexdigest() == image["sha256"] else None


def attempt(image: Document, call: Callable[[], T]) -> T | None:
    """Return the result of a call that reads or writes the bytes of an image while its spool is settled.

    If that is impossible, and a worker has failed the image for this reason after minutes, the settlement does not wait
    for them, and the result is None.

    :raises StoreAway: when it is impossible otherwise.
    """
    try:
        return call()
    except StoreAway:
        if (image.get("error") or {}).get("code") != "bytes_missing":
            raise
        return None


def is_lost(stores: Stores, image: Document) -> bool:
    """Return whether an original that is missing or damaged is lost. It is not if it, or its batch, has just been deleted.

    :raises ShelfsightError: when the database does not respond, or all files are missing, not only this one.
    """
    stores.identity.check()
    return settlement.is_kept(stores.db, image["batch_id"]) and not settlement.find_deleted(stores.db, [image["_id"]])


def _digest(blobs: BlobStore, blob_key: str) -> str:
    digest = hashlib.sha256()
    size = 0
    with suppress(BlobMissing):
        while part := blobs.read(blob_key, size, _READ_BYTES):
            digest.update(part)
            size += len(part)
    return digest.hexdigest()
