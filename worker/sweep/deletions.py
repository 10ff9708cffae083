"""Finish deletions of batches: delete the files first, and the documents last."""

import time

from shared.bootstrap import Stores
from shared.ledger import deletion
from shared.settings import Settings
from shared.storage.blob_keys import batch_prefix, spool_key


def longest_write_s(settings: Settings) -> float:
    """Return the number of seconds after which a worker that has lost its claim can no longer write."""
    return settings.worker.hard_limit_s + settings.worker.lease_s


def finish(stores: Stores, until: float) -> bool:
    """Delete the files of deleted batches twice, and then the documents.

    The files are deleted soon after the ``DELETE`` request, in case the request was interrupted. They are deleted a
    second time when no worker can write files of the batch any more. Then the documents are deleted.

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
