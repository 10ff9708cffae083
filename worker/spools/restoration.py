"""Restore originals of a batch from its spool."""

import logging
from collections.abc import Sequence
from functools import partial

from shared.bootstrap import Stores
from shared.errors import StoreAway
from shared.ledger import settlement
from shared.states import ImageState
from shared.storage.mongo import Document
from worker.spools import originals

_log = logging.getLogger("shelfsight.error")


class NotFinished(Exception):
    """The spool of a batch is not settled now: an image is not terminal, the batch is being deleted, or the time is over."""


def restore(stores: Stores, batch_id: str, images: Sequence[Document]) -> tuple[set[str], bool]:
    """Restore missing or damaged originals from the spool.

    Nothing is reported if all files are missing, or of what has just been deleted: the batch, or some of the images. A
    deletion is recorded before it deletes files. So if the batch or an image is kept after this function has written
    originals, a deletion will delete them, too.

    :param images: images of one batch. Their originals are in memory at the same time.
    :returns: the ids of the images whose originals are stored now, and whether these are all that are not being deleted.
    :raises NotFinished: when the whole batch is being deleted, or all the images.
    """
    images = _without_deleted(stores, batch_id, images)
    written = _write(stores, images)
    stores.identity.check()
    try:
        kept = _without_deleted(stores, batch_id, images)
    except NotFinished:
        kept = []
    kept_ids = {image["_id"] for image in kept}
    for image in images:
        if image["_id"] in written - kept_ids:
            stores.blobs.delete(originals.key(image))
    if not kept and images:
        raise NotFinished
    _report(kept, written)
    return written & kept_ids, kept_ids <= written


def _write(stores: Stores, images: Sequence[Document]) -> set[str]:
    """Write originals with their bytes from the spool, and return the ids of their images."""
    read = [(image, originals.attempt(image, partial(originals.read_from_spool, stores.blobs, image))) for image in images]
    found = {image["_id"]: (originals.key(image), [data]) for image, data in read if data is not None}
    if not found:
        return set()
    try:
        stores.blobs.write_many(list(found.values()))
    except StoreAway:  # the files of single images may be the reason
        single = [image for image in images if image["_id"] in found]
        return {image["_id"] for image in single if originals.attempt(image, partial(_write_one, stores, *found[image["_id"]]))}
    return set(found)


def _write_one(stores: Stores, key: str, parts: Sequence[bytes]) -> bool:
    stores.blobs.write(key, parts)
    return True


def _report(images: Sequence[Document], written: set[str]) -> None:
    for image in images:
        if image["_id"] in written and image["status"] == ImageState.CANCELLED:
            continue  # no worker has stored the original, because none has processed the image
        if image["_id"] in written:
            _log.error("the original of image %s was missing or damaged; it was rewritten from the spool", image["_id"])
        else:
            _log.critical("the original of image %s is missing or damaged, so its spool is kept, with the bytes of any deleted images of its batch", image["_id"])


def _without_deleted(stores: Stores, batch_id: str, images: Sequence[Document]) -> list[Document]:
    """Return the images without those that are being deleted.

    :raises NotFinished: when the whole batch is being deleted.
    """
    if not settlement.is_kept(stores.db, batch_id):
        raise NotFinished
    deleted = settlement.find_deleted(stores.db, [image["_id"] for image in images])
    return [image for image in images if image["_id"] not in deleted]
