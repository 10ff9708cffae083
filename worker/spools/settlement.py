"""Settle spools: make sure that every original of a closed batch is stored under its own key, then delete the spool.

The worker that closes a batch settles its spool at once. The sweep settles the spools that a crash has left. Two
processes may settle the same spool at the same time.
"""

import logging
from collections.abc import Collection, Iterable
from itertools import groupby

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import ShelfsightError, StoreAway
from shared.ledger import settlement
from shared.states import TERMINAL, ImageState
from shared.storage.blob_keys import image_prefix, spool_key
from shared.storage.mongo import Document
from worker.spools import originals

_log = logging.getLogger("shelfsight.error")


class _NotFinished(Exception):
    """An image of the batch is not terminal, or the batch is being deleted, so its spool is not settled now."""


def settle(stores: Stores, batch_ids: Collection[str]) -> set[str]:
    """Publish the variants of closed batches, and delete their spools if all their originals are stored.

    A missing or damaged original is first restored from the spool. If that fails, or if a batch has no image documents,
    its spool is kept permanently. Batches with an image that is not terminal are skipped. An error in one batch is
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

    The images are read one after the other, because a batch can have very many. Publishing and restoring the first
    images is harmless if a later one turns out not to be terminal.
    """
    lost = False
    claimed_once = publishing = True
    for image in images:
        if image["status"] not in TERMINAL:
            raise _NotFinished
        claimed_once = claimed_once and image["work"]["fence"] <= 1
        if publishing and image["status"] == ImageState.DONE:
            publishing = _publish(stores, image)
        if not _is_stored(stores, image):
            _report_lost(stores, image)
            lost = True
    if not lost:
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
    """Return whether the original of an image is stored, after restoring it from the spool if necessary.

    If the worker that wrote the result has verified the original, only its length is checked here.
    """
    check = originals.has_right_size if image["work"].get("stored") else originals.is_intact
    try:
        if check(stores.blobs, image):
            return True
        if not originals.restore(stores.blobs, image):
            return False
    except StoreAway:
        if (image.get("error") or {}).get("code") != "bytes_missing":
            raise
        return False  # a worker has tried to read these bytes for minutes, so the settlement does not wait for them
    _log.error("the original of image %s was missing or damaged; it was rewritten from the spool", image["_id"])
    return True


def _report_lost(stores: Stores, image: Document) -> None:
    """Report a lost original, but not if all files are missing, or if the batch has just been deleted."""
    stores.identity.check()
    if not settlement.is_kept(stores.db, image["batch_id"]):
        raise _NotFinished
    _log.critical("the original of image %s is missing or damaged, so its spool is kept", image["_id"])


def _is_without_images(stores: Stores, batch_id: str) -> bool:
    """Return whether a batch exists but has no image documents, and report that."""
    if settlement.has_images(stores.db, batch_id) or not settlement.is_kept(stores.db, batch_id):
        return False
    _log.critical("batch %s has no image documents; its spool is kept, because it can be the only copy of the images", batch_id)
    return True
