"""A lease in MongoDB that at most one process holds at a time. It is a lock that ends when its holder dies.

Only MongoDB's clock determines when a lease expires. The collection ``leases`` has one document per lease, with the
fields ``owner`` and ``until``. Such a lease does not use the protocol of ``shared.queue.leases``, because it needs no
queue, no fence, and no count of attempts.
"""

import uuid
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared.storage.mongo import Db, Document, translate_errors


class ExclusiveLease:
    """A lease, as seen by one process. ``owner`` identifies this object; it is never reused.

    Every method raises ``StoreAway`` when MongoDB does not respond.
    """

    def __init__(self, db: Db, name: str, length_s: float, **details: Any) -> None:
        """Do not access the database yet.

        :param name: all processes that compete for the lease use the same name.
        :param length_s: seconds until the lease expires unless it is renewed.
        :param details: further fields of the lease, as expressions of MongoDB. ``acquire`` sets them.
        """
        self._db, self._name, self._details = db, name, details
        self._until = {"$add": ["$$NOW", int(length_s * 1000)]}
        self.owner = uuid.uuid4().hex

    def acquire(self) -> Document | None:
        """Acquire the lease if it is free, or renew it if this process holds it.

        :returns: None if this process now holds the lease; otherwise, the lease of the other process. If that process
            has acquired it at the same moment, the result has no other field than ``_id``.
        """
        lease = {"_id": self._name, "owner": self.owner, **self._details, "until": self._until}
        # In MongoDB, a missing field compares as less than any date.
        free = {"$or": [{"$eq": ["$owner", self.owner]}, {"$lt": ["$until", "$$NOW"]}]}
        acquire = [{"$replaceWith": {"$cond": [free, lease, "$$ROOT"]}}]
        with translate_errors():
            try:
                found = self._db.leases.find_one_and_update(
                    {"_id": self._name}, acquire, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # another process inserted the lease at the same time
                return {"_id": self._name}
        assert found is not None  # noqa: S101 -- an upsert returns the document
        return None if found["owner"] == self.owner else found

    def renew(self) -> bool:
        """Renew the lease, and return whether this process still holds it.

        A lease that has expired is renewed unless another process has acquired it in the meantime.
        """
        with translate_errors():
            renewed = self._db.leases.update_one(
                {"_id": self._name, "owner": self.owner}, [{"$set": {"until": self._until}}]
            )
        return renewed.matched_count > 0

    def release(self) -> None:
        """Release the lease, if this process still holds it."""
        with translate_errors():
            self._db.leases.delete_one({"_id": self._name, "owner": self.owner})


def find_holder(db: Db, name: str) -> Document | None:
    """Return the lease with a name; None if no process holds it.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return db.leases.find_one({"_id": name, "$expr": {"$gt": ["$until", "$$NOW"]}})
