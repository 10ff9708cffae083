"""Delete the files that workers wrote under claims that they lost.

A worker writes the files of an image into a folder named after the fence of its claim. Only the folder with the current
fence of the image is needed. The folders of all other fences are deleted. An image that was claimed once has no other
folders, so only batches in which an image was claimed again come here.
"""

from functools import partial

from shared.bootstrap import Stores
from shared.ledger import settlement
from shared.storage.blob_keys import image_prefix
from worker.sweep.claimed_work import clean_each
from worker.sweep.deletions import longest_write_s


def clean(stores: Stores, until: float) -> bool:
    """Delete the files of lost claims. Only batches to which no worker can still write files are cleaned.

    These are the batches that finished more than ``longest_write_s`` seconds ago.

    :param until: time limit, in ``time.monotonic`` seconds.
    :returns: whether there may be more to do.
    """
    claim = partial(settlement.claim_unswept, stores.db, longest_write_s(stores.settings))
    return clean_each(claim, partial(_clean_batch, stores), until)


def _clean_batch(stores: Stores, batch_id: str) -> None:
    for image in settlement.read_reclaimed_images(stores.db, batch_id):
        prefix = image_prefix(image["_id"])
        for fence in stores.blobs.folders(prefix):
            if fence != str(image["work"]["fence"]):
                stores.blobs.delete_tree(f"{prefix}/{fence}")
    settlement.record_swept(stores.db, batch_id)
