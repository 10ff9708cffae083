"""The lock of the migrations: a lease in MongoDB that one process holds while it runs them.

Only MongoDB's clock is used. If the process dies, the lease expires, and the next process can acquire the lock.
"""

import os
import socket
import time
import uuid
from typing import Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared.storage.migrations.errors import LockLost
from shared.storage.mongo import Db, translate_errors

LEASE_S: Final = 15.0
"""Seconds until the lock of a process that has died is free."""
_ID: Final = "migrations"


class MigrationLock:
    """The lock, as seen by one process. ``owner`` identifies this object; it is never reused.

    Every method that accesses the database raises ``StoreAway`` when MongoDB does not respond.
    """

    def __init__(self, db: Db) -> None:
        self._db = db
        self.owner = uuid.uuid4().hex
        self._renewed_at = 0.0

    def acquire(self) -> str | None:
        """Acquire the lock if it is free.

        :returns: None if this process now holds the lock; otherwise, a description of the holder.
        """
        lease = {
            "_id": _ID,
            "owner": self.owner,
            "host": {"$literal": socket.gethostname()},
            "pid": os.getpid(),
            "since": "$$NOW",
            "until": _until(),
        }
        # In MongoDB, a missing field compares as less than any date.
        acquire = [{"$replaceWith": {"$cond": [{"$lt": ["$until", "$$NOW"]}, lease, "$$ROOT"]}}]
        with translate_errors():
            try:
                found = self._db.leases.find_one_and_update({"_id": _ID}, acquire, upsert=True, return_document=ReturnDocument.AFTER)
            except DuplicateKeyError:  # another process inserted the lease at the same time
                return "another process"
        assert found is not None  # noqa: S101 -- an upsert returns the document
        if found["owner"] == self.owner:
            self._renewed_at = time.monotonic()
            return None
        return _describe(found)

    def keep(self) -> None:
        """Renew the lease if a third of its length has passed. Call this method often while holding the lock.

        :raises LockLost: when another process has taken over the lock.
        """
        if time.monotonic() < self._renewed_at + LEASE_S / 3:
            return
        with translate_errors():
            renewed = self._db.leases.update_one({"_id": _ID, "owner": self.owner}, [{"$set": {"until": _until()}}])
        if not renewed.matched_count:
            raise LockLost("Another process has taken over the lock of the migrations; run the command again.")
        self._renewed_at = time.monotonic()

    def release(self) -> None:
        """Release the lock, if this process still holds it."""
        with translate_errors():
            self._db.leases.delete_one({"_id": _ID, "owner": self.owner})


def find_holder(db: Db) -> str | None:
    """Return a description of the process that holds the lock; None if the lock is free.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        found = db.leases.find_one({"_id": _ID, "$expr": {"$gt": ["$until", "$$NOW"]}})
    return None if found is None else _describe(found)


def _describe(lease: dict[str, object]) -> str:
    return f"process {lease['pid']} on {lease['host']}, since {lease['since']:%Y-%m-%d %H:%M:%S} UTC"


def _until() -> dict[str, object]:
    return {"$add": ["$$NOW", int(LEASE_S * 1000)]}
