"""Do the rest of requests to reprocess or to cancel a batch, whose process died before it had done all of it."""

import logging
import time
from collections.abc import Iterator
from typing import Final

from shared.bootstrap import Stores
from shared.ledger import cancellation, reprocessing

_log = logging.getLogger("shelfsight.error")
_AT_ONCE: Final = 20
_MAX_BATCHES: Final = 1000


class BatchRequests:
    """Completes requests, batch by batch. Each call gets a time limit in ``time.monotonic`` seconds, and the next one continues after it."""

    def __init__(self, stores: Stores) -> None:
        self._db = stores.db
        self._cancelled_to = ""

    def complete(self, until: float) -> bool:
        """Queue the images of interrupted reprocessings, and end the queued images of batches that are being cancelled.

        The latter is also done for images that were queued again because their worker has lost them.

        :returns: whether anything was done.
        """
        completed = self._complete_reprocessings(until)
        return self._complete_cancellations(until) or completed

    def _complete_reprocessings(self, until: float) -> bool:
        batch_ids = reprocessing.find_marked(self._db, _MAX_BATCHES)
        for batch_id in batch_ids:
            reprocessing.complete(self._db, [batch_id])
            if time.monotonic() > until:
                break
        return bool(batch_ids)

    def _complete_cancellations(self, until: float) -> bool:
        ended = 0
        for batch_id, mark in self._find_cancelling():
            ended += cancellation.end_queued(self._db, {batch_id: mark})
            self._cancelled_to = batch_id
            if time.monotonic() > until:
                break
        if ended:
            _log.info("sweep: %d queued images of batches that are being cancelled have ended", ended)
        return bool(ended)

    def _find_cancelling(self) -> Iterator[tuple[str, cancellation.Mark]]:
        for _ in range(0, _MAX_BATCHES, _AT_ONCE):
            marks = cancellation.find_cancelling(self._db, self._cancelled_to, _AT_ONCE)
            yield from marks.items()
            if len(marks) < _AT_ONCE:
                self._cancelled_to = ""
                return
