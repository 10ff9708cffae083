"""Delete files that belong to no batch, and files left over in the temporary folder."""

from typing import Final

from shared.bootstrap import Stores
from shared.ids import is_batch_id
from shared.storage.blob_keys import FILES, SHARDS, batch_prefix, shard_prefix
from shared.storage.local_blobs import TEMP
from shared.storage.mongo import translate_errors
from worker.sweep.listing import Listing, delete_old

_TEMP_AGE_S: Final = 3600


class OrphanedFiles:
    """Deletes files that belong to no batch.

    The batches' folders are divided into shards. A call of ``clean`` searches one shard, or the next part of it if the
    shard takes longer than a call may take. After the end of a shard, the next call continues with the next shard.
    """

    def __init__(self, stores: Stores) -> None:
        self._db, self._blobs = stores.db, stores.blobs
        self._shard = 0
        self._folders = Listing(lambda: self._blobs.folders(shard_prefix(FILES, self._shard)))

    def clean(self, until: float) -> bool:
        """Delete the files in the next part of a shard that belong to no batch.

        :param until: time limit, in ``time.monotonic`` seconds.
        :returns: whether the time limit was reached.
        """
        if not self._folders.is_unfinished:
            self._shard = (self._shard + 1) % SHARDS
        for names in self._folders.chunks(until):
            self._delete_orphans([name for name in names if is_batch_id(name)])
        return self._folders.is_unfinished

    def _delete_orphans(self, batch_ids: list[str]) -> None:
        with translate_errors():
            known = {row["_id"] for row in self._db.batches.find({"_id": {"$in": batch_ids}}, {"_id": 1})}
            gone = self._db.ledger.find({"_id": {"$in": batch_ids}, "state": {"$ne": "accepted"}}, {"_id": 1})
            orphans = {row["_id"] for row in gone} - known
        for batch_id in orphans:
            self._blobs.delete_tree(batch_prefix(batch_id))


class TemporaryFiles:
    """Deletes trees whose deletion was interrupted, and temporary files that a crash has left."""

    def __init__(self, stores: Stores) -> None:
        self._blobs = stores.blobs
        self._trees = Listing(lambda: self._blobs.folders(TEMP))
        self._files = Listing(lambda: self._blobs.list(TEMP))

    def clean(self, until: float) -> bool:
        """Delete the next part of the left-over trees and files.

        :param until: time limit, in ``time.monotonic`` seconds.
        :returns: whether the time limit was reached.
        """
        for names in self._trees.chunks(until):
            for name in names:
                self._blobs.delete_tree(f"{TEMP}/{name}")
        delete_old(self._blobs, self._files, _TEMP_AGE_S, until)
        return self._trees.is_unfinished or self._files.is_unfinished
