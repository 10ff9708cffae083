"""Concurrency limits for fetches. They prevent clients from using this service to flood a third party with requests."""

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from shared.errors import Busy

_RETRY_AFTER_S = 2


class ConcurrencyLimit:
    """Counts the running fetches of this process for each key, such as the host of the source. Thread-safe.

    A fetch that would exceed the limit for one of its keys is rejected. It is never queued.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[Hashable] = Counter()

    @contextmanager
    def slot(self, *keys: Hashable, limit: int) -> Iterator[None]:
        """Hold one slot for each of ``keys`` while the ``with`` block runs.

        :raises Busy: when ``limit`` slots are already in use for one of the keys.
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
                self._running = +self._running  # remove counts of 0: clients choose the keys, so memory would fill up
