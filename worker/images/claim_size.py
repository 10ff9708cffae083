"""How many images a worker claims, so that no worker is idle while another holds a long claim."""

import time
from typing import Final

from shared.ledger import claims
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import Db

_COUNT_INTERVAL_S: Final = 5.0


class ClaimSize:
    """Chooses the size of each claim: the queued images divided by the number of workers, between two limits.

    Without this, one worker would claim a whole small batch, or the last images of a backlog, and process them while
    the other workers have nothing to do.
    """

    def __init__(self, db: Db, *, least: int, most: int) -> None:
        """Set the limits, in images. ``least`` is the number that the model processes at once."""
        self._db, self._least, self._most = db, min(least, most), most
        self._workers, self._counted_at = 0, float("-inf")

    def choose(self) -> int:
        """Return the number of images to claim now.

        :raises StoreAway: when MongoDB does not respond.
        """
        workers = self._count_workers()
        if workers <= 1:
            return self._most
        waiting = claims.count_queued(self._db, at_most=self._most * workers)
        return max(self._least, min(self._most, -(-waiting // workers)))

    def _count_workers(self) -> int:
        now = time.monotonic()
        if now >= self._counted_at + _COUNT_INTERVAL_S:
            self._workers, self._counted_at = heartbeats.count_workers(self._db, IMAGES), now
        return self._workers
