"""Queues images again that have failed: some of them by their ids, at once. ``bulk_reprocessing`` does it for many, by filters."""

from collections.abc import Sequence
from typing import Final

from shared.allowed_stores import AllowedStores
from shared.catalog import chosen_images
from shared.ledger import reprocessing
from shared.ledger.reprocessing import Options
from shared.states import ImageState
from shared.storage.mongo import Db, deadline

MAX_IDS: Final = 1000
FAILED: Final = ImageState.FAILED.value


def retry(db: Db, ids: Sequence[str], by: str | None, stores: AllowedStores, *, deadline_s: float = 10.0) -> dict[str, int]:
    """Queue those of the images that are failed, and return their number by batch. They keep their options and their priority.

    Images of a batch that is being cancelled, or that other requests change again and again at this moment, are left.

    :param ids: at most ``MAX_IDS``.
    :param by: who has requested it.
    :param stores: the stores in which the caller may change images. The batches must have images of no others.
    :raises Invalid: when ids are those of no image (``unknown_image``). Nothing is queued then.
    :raises Forbidden: when images, or others of their batches, belong to other stores (``foreign_store``). Nothing is queued then.
    :raises StoreAway: when MongoDB does not respond. The images may still be queued.
    """
    with deadline(deadline_s):
        chosen_images.check(db, None, ids, stores)
        chosen_images.check_batches(db, ids, stores)
        return reprocessing.reprocess_images(db, ids, {"status": FAILED}, Options(by=by, only=FAILED), stores, deadline_s=deadline_s)
