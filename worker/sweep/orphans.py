"""Delete files that belong to no batch, and files left over in the temporary folder."""

import time
from typing import Final

from shared.bootstrap import Stores
from shared.ids import is_batch_id
from shared.storage.blob_keys import FILES, SHARDS, batch_prefix, shard_prefix
from shared.storage.local_blobs import TEMP
from shared.storage.mongo import translate_errors

_LIMIT: Final = 200
_TEMP_AGE_S: Final = 3600


class OrphanSweep:
    """Deletes files that belong to no batch, and files left over in the temporary folder.

    Each call of ``clean`` searches only one shard (part) of the batches' folders. The next call continues with the next
    shard.
    """

    def __init__(self, stores: Stores) -> None:
        self._db, self._blobs = stores.db, stores.blobs
        self._shard = 0

    def clean(self, until: float) -> bool:
        """Delete files in the next shard that belong to no batch, and left-over files in the temporary folder.

        :param until: time limit, in ``time.monotonic`` seconds.
        :returns: whether the time limit was reached.
        """
        self._shard = (self._shard + 1) % SHARDS
        return self._clean_shard(shard_prefix(FILES, self._shard), until) or self._clean_temp(until)

    def _clean_shard(self, shard: str, until: float) -> bool:
        folders = [name for name in self._blobs.folders(shard) if is_batch_id(name)]
        for begin in range(0, len(folders), _LIMIT):
            if time.monotonic() > until:
                return True
            batch_ids = folders[begin : begin + _LIMIT]
            with translate_errors():
                known = {row["_id"] for row in self._db.batches.find({"_id": {"$in": batch_ids}}, {"_id": 1})}
                gone = self._db.ledger.find({"_id": {"$in": batch_ids}, "state": {"$ne": "accepted"}}, {"_id": 1})
                for batch_id in {row["_id"] for row in gone} - known:
                    self._blobs.delete_tree(batch_prefix(batch_id))
        return False

    def _clean_temp(self, until: float) -> bool:
        for name in self._blobs.folders(TEMP):  # these folders are trees whose deletion was interrupted
            if time.monotonic() > until:
                return True
            self._blobs.delete_tree(f"{TEMP}/{name}")
        for blob in self._blobs.list(TEMP):
            if time.time() - blob.modified > _TEMP_AGE_S:
                self._blobs.delete(blob.key)
        return False
