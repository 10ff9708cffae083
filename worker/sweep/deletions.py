"""Finishes deletions of batches: their files, and at last their documents."""

import time

from shared.bootstrap import Stores
from shared.ledger import deletion
from shared.settings import Settings
from shared.storage.blob_keys import batch_prefix, spool_key


def longest_write_s(settings: Settings) -> float:
    """Return the seconds after which a worker that lost its claim has stopped writing."""
    return settings.worker.hard_limit_s + settings.worker.lease_s


def finish(stores: Stores, until: float) -> bool:
    """Delete the files of deleted batches: once soon, in case the request was interrupted, and again when no worker can still write.

    :param until: time limit, in ``time.monotonic`` seconds.
    :returns: whether the time limit was reached.
    """
    longest_s = longest_write_s(stores.settings)
    steps = (
        (deletion.find_with_files(stores.db), deletion.mark_files_deleted),
        (deletion.find_deletable(stores.db, longest_s), deletion.finish_delete),
    )
    for batch_ids, record in steps:
        for batch_id in batch_ids:
            if time.monotonic() > until:
                return True
            stores.blobs.delete_tree(batch_prefix(batch_id))
            stores.blobs.delete(spool_key(batch_id))
            record(stores.db, batch_id)
    return False
