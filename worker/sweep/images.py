"""Repairs of the images of batches: expired leases, unclosed batches, lost wakeups."""

import logging

from shared.bootstrap import Stores
from shared.ledger import claims, results, store_rotation
from shared.queues import IMAGES

_log = logging.getLogger("shelfsight.error")


def expire_leases(stores: Stores) -> bool:
    """Queue images whose worker has vanished; whether there were any."""
    expired = claims.expire_leases(stores.db)
    if expired:
        _log.warning("sweep: %d images of vanished workers are queued again", expired)
    return bool(expired)


def close_batches(stores: Stores) -> bool:
    """Close batches whose last worker died before it closed them; whether there were any."""
    return bool(results.close_batches(stores.db, results.find_closable(stores.db)))


def publish_wakeups(stores: Stores) -> bool:
    """Publish a wakeup when images can be claimed and no wakeup waits; whether it was published."""
    store_rotation.repair(stores.db)
    if not claims.has_claimable(stores.db):
        return False
    wakeups = stores.wakeups[IMAGES]
    return wakeups.count_waiting() == 0 and wakeups.publish()
