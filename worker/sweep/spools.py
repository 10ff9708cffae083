"""Settle the spools that a crash has left, and delete old spools that belong to no batch."""

import time
from functools import partial

from shared.bootstrap import Stores
from shared.ids import is_batch_id
from shared.ledger import commits, settlement
from shared.storage.blob_keys import SPOOL, spool_key
from shared.storage.blobs import BlobStat
from shared.storage.mongo import translate_errors
from worker.spools.settlement import settle
from worker.sweep.claimed_work import clean_each
from worker.sweep.listing import Listing


def settle_left(stores: Stores, until: float) -> bool:
    """Settle spools whose batches have been closed for a while. Normally, the worker has settled them.

    :param until: time limit, in ``time.monotonic`` seconds. A batch that takes longer is continued by the next call.
    :returns: whether there may be more to do.
    """

    def settle_one(batch_id: str) -> None:
        settle(stores, [batch_id], until)

    return clean_each(partial(settlement.claim_unsettled, stores.db), settle_one, until)


class OrphanedSpools:
    """Deletes old spools that belong to no batch. A call continues where the previous one stopped."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._listing = Listing(lambda: stores.blobs.list(SPOOL))

    def clean(self, until: float) -> bool:
        """Delete the old spools in the next part of the listing that belong to no batch.

        :param until: time limit, in ``time.monotonic`` seconds.
        :returns: whether the time limit was reached.
        """
        for blobs in self._listing.chunks(until):
            self._delete_orphans([blob.key.removeprefix(f"{SPOOL}/") for blob in blobs if self._is_old(blob)])
        return self._listing.is_unfinished

    def _is_old(self, blob: BlobStat) -> bool:
        return time.time() - blob.modified > self._stores.settings.sweep.orphan_age_s

    def _delete_orphans(self, names: list[str]) -> None:
        batch_ids = {name for name in names if is_batch_id(name)}
        if not batch_ids:
            return
        db, blobs = self._stores.db, self._stores.blobs
        for batch_id in batch_ids - commits.find_accepted(db, list(batch_ids)):
            # Insert the tombstone first, so that a late commit fails instead of accepting a batch without bytes.
            with translate_errors():
                abandoned = commits.abandon(db, batch_id)
            if abandoned:
                blobs.delete(spool_key(batch_id))
