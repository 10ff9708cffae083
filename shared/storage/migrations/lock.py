"""The lock of the migrations: a lease in MongoDB that one process holds while it runs them.

If the process dies, the lease expires, and the next process can acquire the lock.
"""

import os
import socket
import time
from typing import Final

from shared.storage import exclusive_lease
from shared.storage.exclusive_lease import ExclusiveLease
from shared.storage.migrations.errors import LockLost
from shared.storage.mongo import Db, Document

LEASE_S: Final = 15.0
"""Seconds until the lock of a process that has died is free."""
_NAME: Final = "migrations"


class MigrationLock:
    """The lock, as seen by one process. ``owner`` identifies this object; it is never reused.

    Every method that accesses the database raises ``StoreAway`` when MongoDB does not respond.
    """

    def __init__(self, db: Db) -> None:
        self._lease = ExclusiveLease(
            db, _NAME, LEASE_S, host={"$literal": socket.gethostname()}, pid=os.getpid(), since="$$NOW"
        )
        self.owner = self._lease.owner
        self._renewed_at = 0.0

    def acquire(self) -> str | None:
        """Acquire the lock if it is free.

        :returns: None if this process now holds the lock; otherwise, a description of the holder.
        """
        other = self._lease.acquire()
        if other is None:
            self._renewed_at = time.monotonic()
            return None
        return _describe(other)

    def keep(self) -> None:
        """Renew the lease if a third of its length has passed. Call this method often while holding the lock.

        :raises LockLost: when another process has taken over the lock.
        """
        if time.monotonic() < self._renewed_at + LEASE_S / 3:
            return
        if not self._lease.renew():
            raise LockLost("Another process has taken over the lock of the migrations; run the command again.")
        self._renewed_at = time.monotonic()

    def release(self) -> None:
        """Release the lock, if this process still holds it."""
        self._lease.release()


def find_holder(db: Db) -> str | None:
    """Return a description of the process that holds the lock; None if the lock is free.

    :raises StoreAway: when MongoDB does not respond.
    """
    found = exclusive_lease.find_holder(db, _NAME)
    return None if found is None else _describe(found)


def _describe(lease: Document) -> str:
    if "pid" not in lease:
        return "another process"
    return f"process {lease['pid']} on {lease['host']}, since {lease['since']:%Y-%m-%d %H:%M:%S} UTC"
