"""Settle spools: make sure that every original of a closed batch is stored under its own key, then delete the spool.

The worker that closes a batch settles its spool at once. The sweep settles the spools that a crash has left. Two
processes may settle the same spool at the same time.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import ShelfsightError, StoreAway
from shared.ledger import settlement
from shared.states import TERMINAL, ImageState
from shared.storage.blob_keys import image_prefix, spool_key
from shared.storage.blobs import BlobStore
from shared.storage.mongo import Document
from worker.spools import originals

_log = logging.getLogger("shelfsight.error")


class _NotFinished(Exception):
    """An image of the batch is not terminal, or the batch is being deleted, so its spool is not settled now."""


def settle(stores: Stores, batch_ids: Collection[str]) -> set[str]:
    """Publish the variants of closed batches, and delete their spools if all their originals are stored.

    A missing or damaged original is first restored from the spool. If that fails, or if a batch has no image documents,
    its spool is kept permanently. Such a spool also contains the bytes of images of the batch that were deleted singly; only
    the deletion of the whole batch deletes it. Batches with an image that is not terminal are skipped. An error in one batch is
    logged, and the other batches are settled.

    :returns: the ids of the batches whose spools need no further work, whether they were deleted or kept.
    :raises ShelfsightError: when the database does not respond, or the blob store does not belong to it.
    """
    stores.identity.check()
    settled: set[str] = set()
    claimed_once: set[str] = set()
    without_images = set(batch_ids)
    for batch_id, images in groupby(settlement.read_images(stores.db, batch_ids), key=lambda image: image["batch_id"]):
        without_images.discard(batch_id)
        try:
            if _settle(stores, batch_id, images):
                claimed_once.add(batch_id)
            settled.add(batch_id)
        except _NotFinished:
            continue
        except ShelfsightError as error:
            _log.warning("the spool of batch %s was not settled: %s", batch_id, error.code, exc_info=error)
    settled |= {batch_id for batch_id in without_images if _is_without_images(stores, batch_id)}
    settlement.record_settled(stores.db, settled, claimed_once)
    return settled


def _settle(stores: Stores, batch_id: str, images: Iterable[Document]) -> bool:
    """Settle the spool of one batch, and return whether no image was claimed more than once.

    The images are read one after the other, because a batch can have very many. Publishing the first images is harmless
    if a later one turns out not to be terminal.
    """
    damaged: list[Document] = []
    claimed_once = publishing = True
    for image in images:
        if image["status"] not in TERMINAL:
            raise _NotFinished
        claimed_once = claimed_once and image["work"]["fence"] <= 1
        if publishing and image["status"] == ImageState.DONE:
            publishing = _publish(stores, image)
        if not _is_stored(stores, image):
            damaged.append(image)
    if not damaged or _restore(stores, batch_id, damaged):
        failpoints.reach("9-before-spool-delete")
        stores.blobs.delete(spool_key(batch_id))
    return claimed_once


def _publish(stores: Stores, image: Document) -> bool:
    """Publish the variants of a done image for file servers, in case its worker died before it published them.

    :returns: False if that failed. A missing link only makes requests slower, so it is no reason to keep the spool.
    """
    try:
        stores.blobs.publish(image_prefix(image["_id"]), str(image["work"]["fence"]))
    except ShelfsightError as error:
        _log.warning("the variants of image %s were not published: %s", image["_id"], error.code)
        return False
    return True


def _is_stored(stores: Stores, image: Document) -> bool:
    """Return whether the original of an image is stored.

    If the worker that wrote the result has verified the original, only its length is checked here.
    """
    return _try(stores, image, originals.has_right_size if image["work"].get("stored") else originals.is_intact)


def _try(stores: Stores, image: Document, call: Callable[[BlobStore, Document], bool]) -> bool:
    """Return the result of a call that reads the bytes of an image.

    If they cannot be read, and a worker has failed the image for this reason after minutes, the settlement does not wait
    for them, and the result is False.
    """
    try:
        return call(stores.blobs, image)
    except StoreAway:
        if (image.get("error") or {}).get("code") != "bytes_missing":
            raise
        return False


def _restore(stores: Stores, batch_id: str, images: Sequence[Document]) -> bool:
    """Restore missing or damaged originals from the spool, and return whether all of them are stored now.

    Nothing is reported if all files are missing, or of what has just been deleted: the batch, or some of the images. A
    deletion is recorded before it deletes files. So if the batch or an image is kept after this function has written
    originals, a deletion will delete them, too.
    """
    images = _without_deleted(stores, batch_id, images)
    restored = {image["_id"]: originals.key(image) for image in images if _try(stores, image, originals.restore)}
    stores.identity.check()
    try:
        kept = _without_deleted(stores, batch_id, images)
    except _NotFinished:
        kept = []
    for image_id in restored.keys() - {image["_id"] for image in kept}:
        stores.blobs.delete(restored[image_id])
    if not kept and images:
        raise _NotFinished
    for image in kept:
        if image["_id"] in restored:
            _log.error("the original of image %s was missing or damaged; it was rewritten from the spool", image["_id"])
        else:
            _log.critical("the original of image %s is missing or damaged, so its spool is kept, with the bytes of any deleted images of its batch", image["_id"])
    return all(image["_id"] in restored for image in kept)


def _without_deleted(stores: Stores, batch_id: str, images: Sequence[Document]) -> list[Document]:
    """Return the images without those that are being deleted.

    :raises _NotFinished: when the whole batch is being deleted.
    """
    if not settlement.is_kept(stores.db, batch_id):
        raise _NotFinished
    deleted = settlement.find_deleted(stores.db, [image["_id"] for image in images])
    return [image for image in images if image["_id"] not in deleted]


def _is_without_images(stores: Stores, batch_id: str) -> bool:
    """Return whether a batch exists but has no image documents, and report that."""
    if settlement.has_images(stores.db, batch_id) or not settlement.is_kept(stores.db, batch_id):
        return False
    _log.critical("batch %s has no image documents; its spool is kept, because it can be the only copy of the images", batch_id)
    return True
