"""What remains to be done for a closed batch: its spool is deleted, and then the files of lost claims.

A batch has the field ``spooled`` until its spool is settled, and ``unswept`` until no files of lost claims are left. A
worker writes the files of an image into a folder named after the fence of its claim. If no image was claimed twice, there
are no files of lost claims, so a batch normally loses both fields in the same write.
"""

from collections.abc import Collection, Iterator
from typing import Final

from pymongo import UpdateMany
from pymongo.read_concern import ReadConcern

from shared.ledger import sweep_claims
from shared.storage.mongo import Db, Document, deadline, linearizable, translate_errors

_LEFT_AFTER_S: Final = 10
"""A batch that has been closed for this number of seconds and still has its spool was left by its worker."""
_CLOSED: Final = {"open": None, "deleting": None}
_FIELDS: Final = ("batch_id", "status", "file_size", "sha256", "work.ext", "work.offset", "work.fence", "work.stored", "error.code")
_PER_ROUND_TRIP: Final = 1000
_KEPT_S: Final = 5.0


def claim_unsettled(db: Db) -> str | None:
    """Claim a batch whose worker closed it and died before it deleted the spool (called by the sweep)."""
    return sweep_claims.claim_batch(
        db, {"spooled": True} | _CLOSED | sweep_claims.older_than("finished_at", _LEFT_AFTER_S)
    )


def claim_unswept(db: Db, longest_write_s: float) -> str | None:
    """Claim a closed batch that may have files of lost claims (called by the sweep).

    :param longest_write_s: seconds after which no worker writes files of a closed batch any more.
    """
    return sweep_claims.claim_batch(
        db, {"unswept": True} | _CLOSED | sweep_claims.older_than("finished_at", longest_write_s)
    )


def read_images(db: Db, batch_ids: Collection[str]) -> Iterator[Document]:
    """Iterate over the images of batches, one batch after the other, as a majority of the replica set has them.

    Images that are being deleted are left out: what remains of their bytes is deleted.

    The documents have only the fields that are needed to settle a spool.
    """
    images = db.get_collection("images", read_concern=ReadConcern("majority"))
    query = {"batch_id": {"$in": list(batch_ids)}, "status": {"$ne": "deleting"}}
    with translate_errors():
        found = images.find(query, dict.fromkeys(_FIELDS, 1)).sort([("batch_id", 1), ("index", 1)])
        yield from found.batch_size(_PER_ROUND_TRIP)


def read_reclaimed_images(db: Db, batch_id: str) -> Iterator[Document]:
    """Iterate over the images of a batch that were claimed more than once, with only their fences."""
    query = {"batch_id": batch_id, "work.fence": {"$gt": 1}}
    with translate_errors():
        yield from db.images.find(query, {"work.fence": 1}).batch_size(_PER_ROUND_TRIP)


def is_kept(db: Db, batch_id: str) -> bool:
    """Return whether a batch exists and is not being deleted.

    A deletion that a majority of the replica set has confirmed is always seen, even if the primary has just changed.

    :raises StoreAway: when a majority does not confirm the result within some seconds.
    """
    with deadline(_KEPT_S):
        found = linearizable(db).batches.find_one({"_id": batch_id}, {"deleting": 1})
    return found is not None and "deleting" not in found


def find_deleted(db: Db, image_ids: Collection[str]) -> set[str]:
    """Return those of ``image_ids`` that are being deleted or do not exist any more.

    After ``is_kept``, a deletion that a majority of the replica set has confirmed is seen, unless the primary changes
    between the two calls.
    """
    images = db.get_collection("images", read_concern=ReadConcern("majority"))
    with translate_errors():
        kept = images.find({"_id": {"$in": list(image_ids)}, "status": {"$ne": "deleting"}}, {"_id": 1})
        return set(image_ids) - {image["_id"] for image in kept}


def has_images(db: Db, batch_id: str) -> bool:
    """Return whether any image document of a batch exists."""
    with translate_errors():
        return db.images.find_one({"batch_id": batch_id}, {"_id": 1}) is not None


def record_settled(db: Db, batch_ids: Collection[str], claimed_once: Collection[str]) -> None:
    """Record that the spools of batches need no further work.

    :param claimed_once: those of the batches in which no image was claimed more than once.
    """
    changes = (
        (claimed_once, {"spooled": "", "unswept": ""}),
        (set(batch_ids) - set(claimed_once), {"spooled": ""}),
    )
    updates = [
        UpdateMany({"_id": {"$in": list(ids)}}, {"$unset": fields | sweep_claims.ENDED})
        for ids, fields in changes
        if ids
    ]
    if updates:
        with translate_errors():
            db.batches.bulk_write(updates, ordered=False)


def record_swept(db: Db, batch_id: str) -> None:
    """Record that a batch has no files of lost claims any more."""
    with translate_errors():
        db.batches.update_one({"_id": batch_id}, {"$unset": {"unswept": ""} | sweep_claims.ENDED})
