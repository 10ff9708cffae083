"""Finish deletions of batches: delete the files first, and the documents last."""

import time
from collections.abc import Callable

from shared.bootstrap import Stores
from shared.ledger import deletion
from shared.settings import Settings
from shared.storage.blob_keys import batch_prefix, spool_key
from shared.storage.mongo import Db


def longest_write_s(settings: Settings) -> float:
    """Return for how many seconds, at most, a worker can still write files after it has lost its claim."""
    return settings.worker.hard_limit_s + settings.worker.lease_s


def finish(stores: Stores, until: float) -> bool:
    """Delete the files and the documents of batches for which a client has sent a ``DELETE`` request.

    The files are deleted soon after the request, in case the request was interrupted before it deleted them. They are
    deleted a second time when no worker can write files of the batch any more, because a worker may have written files
    after the first deletion. Then the documents are deleted.

    :param until: time limit, in ``time.monotonic`` seconds. The first deletions take at most half of the time, so that
        the second ones continue while batches are deleted all the time.
    :returns: whether a time limit was reached, so there may be more to delete.
    """
    now, longest_s = time.monotonic(), longest_write_s(stores.settings)
    is_unfinished = _delete(
        stores, lambda: deletion.claim_with_files(stores.db), deletion.mark_files_deleted, now + (until - now) / 2
    )
    is_unfinished |= _delete(
        stores, lambda: deletion.claim_deletable(stores.db, longest_s), deletion.finish_delete, until
    )
    return is_unfinished


def _delete(
    stores: Stores, claim: Callable[[], str | None], record: Callable[[Db, str], None], until: float
) -> bool:
    """Delete the files of one batch after the other, and return whether the time limit was reached."""
    while batch_id := claim():
        stores.blobs.delete_tree(batch_prefix(batch_id))
        stores.blobs.delete(spool_key(batch_id))
        record(stores.db, batch_id)
        if time.monotonic() > until:
            return True
    return False
