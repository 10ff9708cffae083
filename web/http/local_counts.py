"""Counts in the memory of one process, for the time in which Redis cannot count."""

import threading
from collections import OrderedDict


class LocalCounts:
    """Counts by key. Of more than ``max_keys`` keys, it forgets those that were used least recently. Thread-safe.

    Counts do not expire: a key names a window of time, so nobody reads the count of a past window, and it is soon forgotten.
    """

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._counts)

    def incr(self, key: str, _lifetime_s: float, amount: int = 1) -> int:
        """Add ``amount`` to a count, which is never below 0, and return the sum."""
        with self._lock:
            self._counts[key] = count = max(0, self._counts.pop(key, 0) + amount)
            if len(self._counts) > self._max_keys:
                self._counts.popitem(last=False)
            return count

    def get(self, key: str) -> int:
        """Return a count."""
        return self._counts.get(key, 0)

    def clear(self, key: str) -> None:
        """Set a count to 0."""
        with self._lock:
            self._counts.pop(key, None)
