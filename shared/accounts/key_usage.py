"""Records when API keys are used, with at most one write a minute for each key."""

import threading
import time
from typing import Final

from cachetools import LRUCache

from shared.accounts import api_keys
from shared.storage.mongo import Db

INTERVAL_S: Final = 60.0
_MAX_KEYS: Final = 10_000


class KeyUsage:
    """Records when API keys are used. Thread-safe."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._recorded: LRUCache[str, float] = LRUCache(_MAX_KEYS)
        self._lock = threading.Lock()

    def is_due(self, key_id: str) -> bool:
        """Return whether the use of a key must be recorded. After True, it is False for the next minute."""
        now = time.monotonic()
        with self._lock:
            is_due = now - self._recorded.get(key_id, float("-inf")) >= INTERVAL_S
            if is_due:
                self._recorded[key_id] = now
        return is_due

    def record(self, key_id: str) -> None:
        """Store that a key is used now, unless another process has stored this within the last minute.

        :raises StoreAway: when MongoDB does not respond.
        """
        api_keys.set_last_used(self._db, key_id, INTERVAL_S)
