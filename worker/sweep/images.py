"""Repair the images of batches: requeue images with expired leases, close batches, and replace lost wakeups."""

import logging

from shared.bootstrap import Stores
from shared.ledger import claims, closing, store_rotation
from shared.queues import IMAGES

_log = logging.getLogger("shelfsight.error")


def expire_leases(stores: Stores) -> bool:
    """Requeue the images whose leases have expired, and return whether any image was requeued."""
    expired = claims.expire_leases(stores.db)
    if expired:
        _log.warning("sweep: %d images were requeued because their leases had expired", expired)
    return bool(expired)


def close_batches(stores: Stores) -> bool:
    """Close batches whose last worker died before closing them, and return whether any batch was closed."""
    return bool(closing.close_batches(stores.db, closing.find_closable(stores.db)))


class WakeupSweep:
    """Replaces lost wakeups, and restores the turns of stores whose turn was lost (see ``store_rotation``)."""

    def __init__(self, stores: Stores) -> None:
        self._db, self._wakeups = stores.db, stores.wakeups[IMAGES]
        self._checked_to = ""

    def publish(self) -> bool:
        """Publish a wakeup if images are claimable but no wakeup is in the queue. Return whether one was published.

        Each call checks the turns of some stores. The next call continues with the next stores.
        """
        _, self._checked_to = store_rotation.repair(self._db, self._checked_to)
        if not claims.has_claimable(self._db):
            return False
        return self._wakeups.count_waiting() == 0 and self._wakeups.publish()
