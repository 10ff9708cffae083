"""Delete the spools whose originals are all stored under their own keys, and old spools that belong to no batch."""

import hashlib
import logging
import time
from contextlib import suppress
from typing import Final

from pymongo.read_concern import ReadConcern

from shared import failpoints
from shared.bootstrap import Stores
from shared.ids import is_batch_id
from shared.ledger import commits
from shared.states import TERMINAL, ImageState
from shared.storage.blob_keys import SPOOL, image_prefix, original_key, spool_key
from shared.storage.blobs import BlobMissing, BlobStore
from shared.storage.mongo import Document, translate_errors
from worker.sweep.failures import succeeds

_LIMIT: Final = 200
_READ_BYTES: Final = 1024 * 1024
_log = logging.getLogger("shelfsight.error")


def clean(stores: Stores, until: float) -> bool:
    """Publish the variants of finished batches, and delete spools that are no longer needed.

    Spools of finished batches are deleted if all originals are stored intact. Old spools that belong to no batch are
    deleted, too.

    :param until: time limit, in ``time.monotonic`` seconds.
    :returns: whether there is more to do.
    """
    with translate_errors():
        due = stores.db.batches.find({"spooled": True, "open": {"$ne": True}}, {"_id": 1}).sort("_id", 1).limit(_LIMIT)
        finished = [row["_id"] for row in due]
    for batch_id in finished:
        if time.monotonic() > until:
            return True
        succeeds(_settle, stores, batch_id)
    return _delete_orphans(stores, until) or len(finished) == _LIMIT


def _delete_orphans(stores: Stores, until: float) -> bool:
    """Delete old spools that belong to no batch. Return whether the time limit was reached."""
    old = [
        blob.key.removeprefix(f"{SPOOL}/")
        for blob in stores.blobs.list(SPOOL)
        if time.time() - blob.modified > stores.settings.sweep.orphan_age_s
    ]
    for begin in range(0, len(old), _LIMIT):
        batch_ids = [batch_id for batch_id in old[begin : begin + _LIMIT] if is_batch_id(batch_id)]
        known = commits.find_accepted(stores.db, batch_ids)
        for batch_id in batch_ids:
            if time.monotonic() > until:
                return True
            if batch_id in known:
                continue
            # Insert the tombstone first, so that a late commit fails instead of accepting a batch without bytes.
            with translate_errors():
                abandoned = commits.abandon(stores.db, batch_id)
            if abandoned:
                stores.blobs.delete(spool_key(batch_id))
    return False


def _settle(stores: Stores, batch_id: str) -> None:
    """Publish the variants of a finished batch, and delete its spool if every original is stored intact.

    The spool is kept permanently if an original cannot be restored, or if the batch has no image documents. If an image
    is not terminal yet, nothing is done.
    """
    images = _terminal_images(stores, batch_id)
    if images is None:
        return
    # A missing link only makes requests slower, so a failure is no reason to keep the spool.
    succeeds(_publish, stores.blobs, images)
    if _originals_are_stored(stores.blobs, batch_id, images):
        failpoints.reach("9-before-spool-delete")
        stores.blobs.delete(spool_key(batch_id))
    with translate_errors():
        stores.db.batches.update_one({"_id": batch_id}, {"$unset": {"spooled": ""}})


def _terminal_images(stores: Stores, batch_id: str) -> list[Document] | None:
    """Read the image documents of a batch with read concern ``majority``.

    :returns: the documents, or None if at least one image has not reached a terminal state.
    """
    images = stores.db.get_collection("images", read_concern=ReadConcern("majority"))
    fields = {"status": 1, "file_size": 1, "sha256": 1, "work.ext": 1, "work.offset": 1, "work.fence": 1}
    with translate_errors():
        found = list(images.find({"batch_id": batch_id}, fields).batch_size(2000))
    return found if all(image["status"] in TERMINAL for image in found) else None


def _publish(blobs: BlobStore, images: list[Document]) -> None:
    """Publish the variants of each done image for file servers, in case a worker died before it published them."""
    for image in images:
        if image["status"] == ImageState.DONE:
            blobs.publish(image_prefix(image["_id"]), str(image["work"]["fence"]))


def _originals_are_stored(blobs: BlobStore, batch_id: str, images: list[Document]) -> bool:
    """Return whether all originals are stored with the right length and digest.

    A missing or damaged original is first rewritten from the spool if possible.
    """
    lost = [image for image in images if not _is_intact(blobs, image) and not _restore(blobs, batch_id, image)]
    for image in lost:
        _log.critical("sweep: the original of image %s is missing or damaged, so its spool is kept", image["_id"])
    if not images:
        _log.critical("sweep: batch %s has no image documents; its spool is kept, because it can be the only copy of the images", batch_id)
    return bool(images) and not lost


def _is_intact(blobs: BlobStore, image: Document) -> bool:
    key = original_key(image["_id"], image["work"]["ext"])
    found = blobs.stat(key)
    return found is not None and found.size == image["file_size"] and _digest(blobs, key) == image["sha256"]


def _restore(blobs: BlobStore, batch_id: str, image: Document) -> bool:
    """Rewrite an original with its bytes from the spool. Return False if these bytes are missing or damaged."""
    try:
        data = blobs.read(spool_key(batch_id), image["work"]["offset"], image["file_size"])
    except BlobMissing:
        return False
    if hashlib.sha256(data).hexdigest() != image["sha256"]:
        return False
    _log.error("sweep: the original of image %s was missing or damaged; rewriting it from the spool", image["_id"])
    blobs.write(original_key(image["_id"], image["work"]["ext"]), [data])
    return True


def _digest(blobs: BlobStore, key: str) -> str:
    digest = hashlib.sha256()
    with suppress(BlobMissing):
        file, _ = blobs.open(key)
        with file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
    return digest.hexdigest()
