"""Repair the images of batches: requeue images with expired leases, close batches, and replace lost wakeups."""

import logging
import time
from typing import Final

from shared.bootstrap import Stores
from shared.ledger import claims, closing, turns
from shared.ledger.turns import Turn
from shared.queue import pauses
from shared.queues import IMAGES

_log = logging.getLogger("shelfsight.error")
_LEASES_AT_ONCE: Final = 200
_BATCHES_AT_ONCE: Final = 20
_TURNS_AT_ONCE: Final = 50
_MAX_LEASES: Final = 1000
_MAX_TURNS: Final = 500


class ImageSweep:
    """Repairs the images of batches.

    Each method gets a time limit in ``time.monotonic`` seconds, and does at least a small part of its work. The next call
    continues where it stopped.
    """

    def __init__(self, stores: Stores) -> None:
        self._db, self._wakeups = stores.db, stores.wakeups[IMAGES]
        self._closable: list[str] = []
        self._checked_to: Turn | None = None

    def expire_leases(self, until: float) -> bool:
        """Requeue images whose leases have expired, and return whether any image was requeued."""
        expired = 0
        while expired < _MAX_LEASES:
            count = claims.expire_leases(self._db, _LEASES_AT_ONCE)
            expired += count
            if count < _LEASES_AT_ONCE or time.monotonic() > until:
                break
        if expired:
            _log.warning("sweep: %d images were requeued because their leases had expired", expired)
        return bool(expired)

    def close_batches(self, until: float) -> bool:
        """Close batches whose last worker died before closing them, and return whether any batch was closed."""
        closed = False
        if not self._closable:
            self._closable = closing.find_closable(self._db)
        while self._closable:
            batch_ids, self._closable = self._closable[:_BATCHES_AT_ONCE], self._closable[_BATCHES_AT_ONCE:]
            closed |= bool(closing.close_batches(self._db, batch_ids))
            if time.monotonic() > until:
                break
        return closed

    def publish_wakeup(self, until: float) -> bool:
        """Publish a wakeup if images are claimable but no wakeup is in the queue. Return whether one was published.

        While the queue is paused, none is. Each call also checks whether some turns were lost (see ``shared.ledger.turns``), and restores these.
        """
        for _ in range(0, _MAX_TURNS, _TURNS_AT_ONCE):
            _, self._checked_to = turns.repair(self._db, self._checked_to, _TURNS_AT_ONCE)
            if self._checked_to is None or time.monotonic() > until:
                break
        if not claims.has_claimable(self._db) or pauses.is_paused(self._db, IMAGES):
            return False
        return self._wakeups.count_waiting() == 0 and self._wakeups.publish()
