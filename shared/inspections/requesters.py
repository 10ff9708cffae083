"""Records which accounts requested an inspection, because only they may read it.

The ids of inspections and results are digests of what clients send, so whoever knows a source can compute them. The work
is shared by all accounts, but the addresses ``/inspections/<id>`` and ``/pictures/<id>/...`` are answered only to accounts
that requested the inspection, or were shown the result, within a day.
"""

import threading
from contextlib import suppress
from typing import Final

from cachetools import TTLCache
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from shared.queue.leases import now_plus
from shared.storage.mongo import Db, Document, translate_errors

_KEPT_S: Final = 24 * 3600
_RECORD_EVERY_S: Final = 600.0
_MAX_RECENT: Final = 10_000


class Requesters:
    """The accounts that may read inspections and results. Thread-safe.

    An account is recorded for the id of an inspection or of a result; all these ids are different.
    """

    def __init__(self, db: Db) -> None:
        self._db = db
        self._recent: TTLCache[str, None] = TTLCache(_MAX_RECENT, _RECORD_EVERY_S)
        self._lock = threading.Lock()

    def add(self, account: str, address_id: str) -> None:
        """Permit an account to read an inspection or a result for a day from now.

        For ten minutes, further calls in this process write nothing. So the day can end up to ten minutes early.

        :raises StoreAway: when MongoDB does not respond.
        """
        key = _key(account, address_id)
        if self._is_recent(key):
            return
        change = [{"$set": {"expires_at": now_plus(_KEPT_S)}}]
        with translate_errors(), suppress(DuplicateKeyError):  # another process has just recorded the same
            _requesters(self._db).update_one({"_id": key}, change, upsert=True)
        with self._lock:
            self._recent[key] = None

    def includes(self, account: str, address_id: str) -> bool:
        """Return whether an account may read an inspection or a result.

        :raises StoreAway: when MongoDB does not respond.
        """
        key = _key(account, address_id)
        if self._is_recent(key):
            return True
        query = {"_id": key, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
        with translate_errors():
            return _requesters(self._db).find_one(query, {"_id": 1}) is not None

    def _is_recent(self, key: str) -> bool:
        with self._lock:
            return key in self._recent


def _key(account: str, address_id: str) -> str:
    return f"{account}:{address_id}"


def _requesters(db: Db) -> Collection[Document]:
    return db.get_collection("inspection_requesters", write_concern=WriteConcern(w=1))
