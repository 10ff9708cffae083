"""Repair inspections, and delete their old results and files."""

import time
from typing import Final

from shared.bootstrap import Stores
from shared.inspections import jobs, results
from shared.queue import pauses
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import INCOMING, INSPECTION_FILES, SHARDS, inspection_prefix, shard_prefix
from worker.sweep.listing import Listing, delete_old

_LIMIT: Final = 200
_ORPHAN_AGE_S: Final = 3600
"""Every inspection ends within this time in seconds. So no running inspection needs older files without a result."""


class InspectionSweep:
    """Repairs inspections, and deletes their old results and files.

    A call of ``clean`` searches one shard (part) of the folders for files without a result, or the next part of it if
    the shard takes longer than a call may take.
    """

    def __init__(self, stores: Stores) -> None:
        self._settings, self._db, self._blobs = stores.settings.inspect, stores.db, stores.blobs
        self._wakeups = stores.wakeups[INSPECTIONS]
        self._shard = 0
        self._folders = Listing(lambda: self._blobs.folders(shard_prefix(INSPECTION_FILES, self._shard)))
        self._incoming = Listing(lambda: self._blobs.list(INCOMING))

    def repair(self) -> bool:
        """Requeue or fail inspections with expired leases, fail overdue inspections, and replace lost wakeups.

        :returns: whether an inspection was requeued or failed.
        """
        ended = jobs.expire_leases(self._db, self._settings.failed_s)
        ended += jobs.fail_overdue(self._db, jobs.MAX_WAIT_S, self._settings.failed_s)
        if jobs.has_claimable(self._db) and not pauses.is_paused(self._db, INSPECTIONS) and self._wakeups.count_waiting() == 0:
            self._wakeups.publish()
        return bool(ended)

    def clean(self, until: float) -> bool:
        """Delete results that have expired or do not fit into the space limit, and files that belong to no result.

        :param until: time limit, in ``time.monotonic`` seconds.
        :returns: whether there is more to do.
        """
        old = results.mark_expired(self._db, self._settings.keep_s, self._settings.max_store_bytes, _LIMIT)
        for result_id, folder in old:
            if time.monotonic() > until:
                return True
            self._blobs.delete_tree(inspection_prefix(folder))
            results.delete_marked(self._db, result_id)
        self._clean_orphans(until)
        self._clean_incoming(until)
        return len(old) == _LIMIT or self._folders.is_unfinished or self._incoming.is_unfinished

    def _clean_orphans(self, until: float) -> None:
        """Delete the files in the next part of a shard that belong to no result, if they are old."""
        if not self._folders.is_unfinished:
            self._shard = (self._shard + 1) % SHARDS
        shard = shard_prefix(INSPECTION_FILES, self._shard)
        for names in self._folders.chunks(until):
            old = {name for name in names if self._age_s(f"{shard}/{name}") > _ORPHAN_AGE_S}
            for name in old - results.known_folders(self._db, old):
                self._blobs.delete_tree(f"{shard}/{name}")

    def _clean_incoming(self, until: float) -> None:
        """Delete old uploads that were never processed."""
        delete_old(self._blobs, self._incoming, _ORPHAN_AGE_S, until)

    def _age_s(self, folder: str) -> float:
        """Return the seconds since the newest blob in a folder was written.

        The age of an empty folder is 0, because a worker may be about to write files into it.
        """
        return time.time() - max((blob.modified for blob in self._blobs.list(folder)), default=time.time())
