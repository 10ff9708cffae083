"""Finish deletions of batches and of single images: delete the files first, and the documents last."""

import time
from functools import partial

from shared.bootstrap import Stores
from shared.catalog import image_deletion
from shared.ledger import deletion
from shared.settings import Settings
from shared.storage.blob_keys import batch_prefix, spool_key
from worker.sweep.claimed_work import clean_each


def longest_write_s(settings: Settings) -> float:
    """Return for how many seconds, at most, a worker can still write files after it has lost its claim."""
    return settings.worker.hard_limit_s + settings.worker.lease_s


def finish_batches(stores: Stores, until: float) -> bool:
    """Delete the files and the documents of batches for which a client has sent a ``DELETE`` request.

    The files are deleted soon after the request, in case the request was interrupted before it deleted them. They are
    deleted a second time when no worker can write files of the batch any more, because a worker may have written files
    after the first deletion. Then the documents are deleted. Images that are still in the counts of tags are removed from them.

    :param until: time limit, in ``time.monotonic`` seconds. The first deletions take at most half of the time, so that
        the second ones continue while batches are deleted all the time.
    :returns: whether a time limit was reached, so there may be more to delete.
    """
    db, longest_s = stores.db, longest_write_s(stores.settings)

    def delete_files(batch_id: str) -> None:
        stores.blobs.delete(spool_key(batch_id))  # first, because originals are restored from it
        stores.blobs.delete_tree(batch_prefix(batch_id))

    def delete_first(batch_id: str) -> None:
        delete_files(batch_id)
        deletion.remove_tags(db, batch_id)
        deletion.mark_files_deleted(db, batch_id)

    def delete_again(batch_id: str) -> None:
        delete_files(batch_id)
        deletion.finish_delete(db, batch_id)

    now = time.monotonic()
    has_more = clean_each(partial(deletion.claim_with_files, db), delete_first, now + (until - now) / 2)
    return clean_each(partial(deletion.claim_deletable, db, longest_s), delete_again, until) or has_more


def finish_images(stores: Stores, until: float) -> bool:
    """Do for single images what ``finish_batches`` does for batches.

    :param until: time limit, in ``time.monotonic`` seconds. The first deletions take at most half of the time.
    :returns: whether a time limit was reached, so there may be more to delete.
    """
    db, longest_s = stores.db, longest_write_s(stores.settings)
    delete_files = partial(image_deletion.delete_files, db, stores.blobs)

    def delete_first(image_id: str) -> None:
        delete_files(image_id)
        image_deletion.mark_files_deleted(db, image_id)

    def delete_again(image_id: str) -> None:
        delete_files(image_id)
        image_deletion.finish_delete(db, image_id)

    now = time.monotonic()
    has_more = clean_each(partial(image_deletion.claim_with_files, db), delete_first, now + (until - now) / 2)
    return clean_each(partial(image_deletion.claim_deletable, db, longest_s), delete_again, until) or has_more
