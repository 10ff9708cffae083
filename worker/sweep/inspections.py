"""The sweep's part in inspections: what vanished workers left, what nobody was rung for, what has been kept for long enough."""

import time
from typing import Final

from shared.bootstrap import Stores
from shared.inspections import jobs, results
from shared.queues import INSPECTIONS
from shared.storage.blob_keys import INCOMING, INSPECTION_FILES, inspection_prefix

_MANY: Final = 200
_GIVEN_UP_AFTER_S: Final = 300
_ORPHAN_AGE_S: Final = 3600
"""No inspection takes so long: bytes that nobody knows are nobody's then."""


class InspectionSweep:
    """Remembers between two looks which shard it cleans next."""

    def __init__(self, stores: Stores) -> None:
        """Work on these stores."""
        self._settings, self._db, self._blobs, self._wakeups = stores.settings, stores.db, stores.blobs, stores.wakeups[INSPECTIONS]
        self._shard = 0

    def tend(self) -> bool:
        """Queue what was left behind, fail what nobody comes for, and ring if inspections wait and no bell does."""
        ended = jobs.expire_leases(self._db, self._settings.inspect.failed_s)
        ended += jobs.give_up(self._db, _GIVEN_UP_AFTER_S, self._settings.inspect.failed_s)
        if jobs.has_claimable(self._db) and self._wakeups.count_waiting() == 0:
            self._wakeups.publish()
        return bool(ended)

    def clean(self, until: float) -> bool:
        """Remove results that are old, or too many, and bytes that belong to none.

        :param until: monotonic seconds.
        :returns: whether there is more to do.
        """
        inspect = self._settings.inspect
        old = results.mark_old(self._db, inspect.keep_s, inspect.max_store_bytes, _MANY)
        for result_id, folder in old:
            if time.monotonic() > until:
                return True
            self._blobs.delete_tree(inspection_prefix(folder))
            results.forget(self._db, result_id)
        self._clean_orphans()
        return len(old) == _MANY

    def _clean_orphans(self) -> None:
        """Remove pictures whose result was never stored, one of the 256 shards at a time, and uploads that nobody looked at."""
        self._shard = (self._shard + 1) % 256
        shard = f"{INSPECTION_FILES}/{self._shard:02x}"
        ages = {name: self._age(f"{shard}/{name}") for name in self._blobs.folders(shard)}
        old = {name for name, age_s in ages.items() if age_s > _ORPHAN_AGE_S}
        for name in old - results.known_folders(self._db, old):
            self._blobs.delete_tree(f"{shard}/{name}")
        for blob in self._blobs.list(INCOMING):
            if time.time() - blob.modified > _ORPHAN_AGE_S:
                self._blobs.delete(blob.key)

    def _age(self, folder: str) -> float:
        """Seconds since the newest blob of a folder was written; one without any is being filled, or takes no room."""
        return time.time() - max((blob.modified for blob in self._blobs.list(folder)), default=time.time())
