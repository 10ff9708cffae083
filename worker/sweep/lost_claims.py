"""Delete the files of lost claims and of old results.

A worker writes the files of an image into a folder named after the fence of its claim. Only the folder with the fence that
is shown (``shared.ledger.shown_results``) is needed. An image that was claimed once and has a result has no other folders, so only batches in
which an image was claimed again, or was cancelled after a claim, come here.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from time import monotonic
from typing import Final

from shared import failpoints
from shared.bootstrap import Stores
from shared.ledger import settlement
from shared.ledger.shown_results import shown_fence
from shared.storage.blob_keys import image_prefix
from shared.storage.mongo import Document
from worker.spools.publication import publish
from worker.sweep.claimed_work import clean_each
from worker.sweep.deletions import longest_write_s

_AT_ONCE: Final = 25
"""Number of images after which the time is looked at."""


def clean(stores: Stores, until: float) -> bool:
    """Delete the files of lost claims. Only batches to which no worker can still write files are cleaned.

    These are the batches that finished more than ``longest_write_s`` seconds ago.

    :param until: time limit, in ``time.monotonic`` seconds. A batch that takes longer is continued by the next call.
    :returns: whether there may be more to do.
    """
    claim = partial(settlement.claim_unswept, stores.db, longest_write_s(stores.settings))
    return clean_each(claim, lambda batch_id: _clean_batch(stores, batch_id, until), until)


def _clean_batch(stores: Stores, batch_id: str, until: float) -> None:
    closed_for_s = longest_write_s(stores.settings)
    batch = settlement.read_closed(stores.db, [batch_id], closed_for_s).get(batch_id)
    if batch is None:  # the batch was or is being reprocessed since it was claimed, so it comes here again
        return
    images = settlement.read_reclaimed_images(stores.db, batch_id, batch)
    while part := list(islice(images, _AT_ONCE)):
        if not _clean_images(stores, part):
            return  # the rest is done when the claim has expired
        failpoints.reach("14-part-swept")
        if len(part) == _AT_ONCE and monotonic() > until:
            settlement.record_swept_to(stores.db, batch_id, replace(batch, swept_to=part[-1]["index"] + 1))
            return
    failpoints.reach("14-old-files-deleted")
    settlement.record_swept(stores.db, batch_id, batch.generation)


def _clean_images(stores: Stores, images: Sequence[Document]) -> bool:
    """Publish what is shown of images, and delete the folders of all claims until the last one of each image that are not shown.

    A frozen worker may have published an older result last. If an image is claimed again in the meantime, its new folder
    has a higher number than these claims, so it is not touched.

    :returns: False if something could not be published, so all old folders are kept.
    """
    shown = {image["_id"]: fence for image in images if (fence := shown_fence(image)) is not None}
    if not publish(stores, shown):
        return False
    for image in images:
        prefix = image_prefix(image["_id"])
        for folder in stores.blobs.folders(prefix):
            if folder.isdecimal() and int(folder) <= image["work"]["fence"] and int(folder) != shown.get(image["_id"]):
                failpoints.reach("14-before-old-files-deleted")
                stores.blobs.delete_tree(f"{prefix}/{folder}")
    return True
