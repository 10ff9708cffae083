"""Ensure with a lease in MongoDB that only one sweep process, the leader, does the work that is not shared.

Only MongoDB's clock determines when the lease expires. This lease is only a lock. It does not use the protocol of
``shared.queue.leases``, because it needs no queue, no fence, and no count of attempts.
"""

import uuid

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared.bootstrap import Stores
from shared.queue.heartbeats import SWEEP_LEASE
from shared.storage.mongo import translate_errors


class Leader:
    """Acquires the leader's lease for one sweep process. The lease lasts five times as long as the sweep interval."""

    def __init__(self, stores: Stores) -> None:
        self._db = stores.db
        self._owner = uuid.uuid4().hex
        self._lease_ms = int(stores.settings.sweep.interval_s * 5000)

    def acquire(self) -> bool:
        """Acquire or renew the lease, and return whether this process now holds it.

        :raises StoreAway: when MongoDB does not respond.
        """
        lease = {"_id": SWEEP_LEASE, "owner": self._owner, "until": {"$add": ["$$NOW", self._lease_ms]}}
        # In MongoDB, a missing field compares as less than any date.
        free = {"$or": [{"$eq": ["$owner", self._owner]}, {"$lt": ["$until", "$$NOW"]}]}
        acquire = [{"$replaceWith": {"$cond": [free, lease, "$$ROOT"]}}]
        with translate_errors():
            try:
                found = self._db.leases.find_one_and_update(
                    {"_id": SWEEP_LEASE}, acquire, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # another process inserted the lease at the same time
                return False
        return found is not None and bool(found["owner"] == self._owner)
