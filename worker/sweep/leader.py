"""Ensure with a lease in MongoDB that only one sweep process, the leader, does the work that is not shared."""

from shared.bootstrap import Stores
from shared.queue.heartbeats import SWEEP_LEASE
from shared.storage.exclusive_lease import ExclusiveLease


class Leader:
    """Acquires the leader's lease for one sweep process. The lease lasts five times as long as the sweep interval."""

    def __init__(self, stores: Stores) -> None:
        self._lease = ExclusiveLease(stores.db, SWEEP_LEASE, 5 * stores.settings.sweep.interval_s)

    def acquire(self) -> bool:
        """Acquire or renew the lease, and return whether this process now holds it.

        :raises StoreAway: when MongoDB does not respond.
        """
        return self._lease.acquire() is None
