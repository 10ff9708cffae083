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


def publish_wakeups(stores: Stores) -> bool:
    """Publish a wakeup if images are claimable but no wakeup is in the queue. Return whether one was published."""
    store_rotation.repair(stores.db)
    if not claims.has_claimable(stores.db):
        return False
    wakeups = stores.wakeups[IMAGES]
    return wakeups.count_waiting() == 0 and wakeups.publish()
