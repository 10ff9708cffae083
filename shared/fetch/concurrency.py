"""Concurrency limits, so that the service cannot be used to flood a third party."""

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from shared.errors import Busy

_RETRY_AFTER_S = 2


class ConcurrencyLimit:
    """Counts by key the fetches of this process. A fetch above the limit is rejected, never queued. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[Hashable] = Counter()

    @contextmanager
    def slot(self, *keys: Hashable, limit: int) -> Iterator[None]:
        """Hold a slot under each of these keys while the ``with`` block runs.

        :raises Busy: when ``limit`` slots of one of the keys are in use.
        """
        with self._lock:
            if any(self._running[key] >= limit for key in keys):
                raise Busy(
                    "Too many concurrent fetches, in total or for this source; retry later.", retry_after=_RETRY_AFTER_S
                )
            self._running.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._running.subtract(keys)
                self._running = +self._running  # drop zero counts: clients choose the keys, so they would accumulate
