"""A thread that settles the spools of the batches that a worker has closed."""

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Final

from shared.bootstrap import Stores
from shared.errors import ShelfsightError
from worker.spools.settlement import settle

_log = logging.getLogger("shelfsight.error")
_MAX_WAITING: Final = 512
_AT_ONCE: Final = 32
"""Number of batches that are settled with one query. A claim can close as many batches as it has images."""
_STOP_S: Final = 2.0


class Settler:
    """Settles spools in its own thread, so that the processing of images does not wait for it. It is thread-safe.

    If more than ``_MAX_WAITING`` batches wait, or a spool cannot be settled, the sweep settles the spool later.
    """

    def __init__(self, stores: Stores) -> None:
        """Start the thread. It runs until ``stop`` is called or the process ends."""
        self._stores = stores
        self._waiting: Queue[str | None] = Queue(_MAX_WAITING)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="settle", daemon=True)
        self._thread.start()

    def submit(self, batch_ids: Iterable[str]) -> None:
        """Settle the spools of these closed batches soon."""
        with suppress(Full):
            for batch_id in batch_ids:
                self._waiting.put_nowait(batch_id)

    def stop(self) -> None:
        """Stop the thread after the batches that it is settling now, and wait for it for a few seconds."""
        self._stopped.set()
        with suppress(Full):
            self._waiting.put_nowait(None)  # wakes the thread
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while True:
            batch_ids = self._take()
            if self._stopped.is_set():
                return
            try:
                settle(self._stores, batch_ids)
            except ShelfsightError as error:
                _log.warning("spools were not settled: %s; the sweep will settle them", error.code)
            except Exception:  # noqa: BLE001 -- the thread must go on with other batches
                _log.exception("spools were not settled because of an unexpected error; the sweep will settle them")

    def _take(self) -> set[str]:
        """Wait for a batch, and return it with further batches that are waiting."""
        taken = [self._waiting.get()]
        with suppress(Empty):
            while len(taken) < _AT_ONCE:
                taken.append(self._waiting.get_nowait())
        return {batch_id for batch_id in taken if batch_id is not None}
