"""Shares the batches and the images that need cleaning among all sweep processes.

A sweep process claims one batch or one image at a time. The claim only prevents two processes from doing the same work at the same
time. It guards nothing, because all this work can be repeated and interrupted at any point. Therefore, it needs neither
a fence nor a renewal. If the work succeeds, the write that records this also ends the claim. If it fails, the claim
expires. Until then, the sweep processes go on with others.
"""

from typing import Final

from pymongo.collection import Collection

from shared.queue.leases import now_plus
from shared.storage.mongo import Db, Document, translate_errors

_CLAIM_S: Final = 60
ENDED: Final = {"sweep_until": ""}
"""The argument of ``$unset`` that ends a claim."""


def claim_batch(db: Db, due: Document) -> str | None:
    """Claim one of the batches that match a filter, and return its id. Return None if every such batch is claimed.

    A majority of the replica set has the claim and everything that was written to the batch before it.
    """
    return _claim(db.batches, due)


def claim_image(db: Db, due: Document) -> str | None:
    """Claim an image in the same way as ``claim_batch`` claims a batch."""
    return _claim(db.images, due)


def _claim(collection: Collection[Document], due: Document) -> str | None:
    # In an aggregation expression, a missing field is less than any date.
    free = {"$expr": {"$lt": ["$sweep_until", "$$NOW"]}}
    with translate_errors():
        found = collection.find_one_and_update(
            {"$and": [due, free]}, [{"$set": {"sweep_until": now_plus(_CLAIM_S)}}], {"_id": 1}
        )
    return None if found is None else str(found["_id"])


def older_than(field: str, seconds: float) -> Document:
    """Return a filter for the documents in which the time ``field`` is more than ``seconds`` ago, or is not set."""
    return {"$expr": {"$lt": [f"${field}", {"$subtract": ["$$NOW", int(seconds * 1000)]}]}}
