"""Finds the batches of which image documents are missing, or of which there are more than were received.

The sweep calls this for an interval of batches whose sum is wrong (``shared.ledger.sums``), which is rare.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from shared.storage.mongo import Db, Document

NAMED: Final = 20
"""The maximum number of batches that are named. The others are only counted."""
_MAX_BATCHES: Final = 10_000
"""A segment has a few hundred batches. Batches that are newer than the newest segment can be more; then the oldest are checked."""
_DEADLINE_MS: Final = 5000


@dataclass(frozen=True, slots=True)
class UnbalancedBatches:
    """The batches of an interval that do not balance.

    There are ``count`` of them, which lack ``missing`` image documents together. ``named`` has the ids of the oldest of these
    batches, and how many documents each of them lacks; the number is negative if it has too many.
    """

    count: int
    missing: int
    named: tuple[tuple[str, int], ...]

    @classmethod
    def from_document(cls, document: Document | None) -> "UnbalancedBatches":
        """Return what ``to_document`` has returned; for None, no batches."""
        if document is None:
            return BALANCED
        return cls(document["batches"], document["missing"], tuple((row["batch_id"], row["missing"]) for row in document["named"]))

    def to_document(self) -> Document:
        """Return the stored form."""
        return {"missing": self.missing, "batches": self.count, "named": [{"batch_id": batch, "missing": count} for batch, count in self.named]}


BALANCED: Final = UnbalancedBatches(0, 0, ())


def find_unbalanced(db: Db, after: str, newest: str | None) -> UnbalancedBatches:
    """Find the batches with ids in ``(after, newest]`` that do not balance. All numbers are read from one snapshot.

    At most 10,000 batches are checked, the oldest first. Only their ledger lines and the entries of their images in indexes
    are read.

    :param newest: None for all batches after ``after``.
    """
    ids: Document = {"$gt": after} | ({} if newest is None else {"$lte": newest})
    with db.client.start_session(snapshot=True) as session:
        fields = {"received": 1, "deleted": 1}
        lines = db.ledger.find({"_id": ids}, fields, session=session).sort("_id", 1).limit(_MAX_BATCHES + 1).max_time_ms(_DEADLINE_MS)
        expected = {line["_id"]: line["received"] - line["deleted"] for line in lines}
        if len(expected) > _MAX_BATCHES:
            expected.pop(max(expected))
            ids = {"$gt": after, "$lte": max(expected)}

        def count(match: Document, hint: Any) -> Counter[str]:
            pipeline = [{"$match": match}, {"$group": {"_id": "$batch_id", "n": {"$sum": 1}}}]
            groups = db.images.aggregate(pipeline, hint=hint, maxTimeMS=_DEADLINE_MS, session=session)
            return Counter({group["_id"]: group["n"] for group in groups})

        found = count({"batch_id": ids}, {"batch_id": 1, "index": 1})
        found.subtract(count({"status": "deleting", "batch_id": ids}, "rare_states"))
    off = {batch: expected.get(batch, 0) - found[batch] for batch in sorted(expected.keys() | found.keys())}
    off = {batch: missing for batch, missing in off.items() if missing}
    missing = sum(max(0, count) for count in off.values())
    return UnbalancedBatches(len(off), missing, tuple(off.items())[:NAMED])
