"""Deletes a batch in three steps. ``shared.ledger.standing_images`` begins the deletion of a single image.

First, the batch is removed from all lists, and the fences of its images are increased. Then its files are deleted,
twice. Finally, its documents are deleted.
"""

from functools import partial
from typing import Final

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.ledger import claims, page_index, sums, sweep_claims, tag_counts, whole_batches
from shared.storage.mongo import Db, Document, run_transaction, translate_errors

_TAG_PARTS: Final = 40
_TAG_PART_S: Final = 10.0


def begin_delete(db: Db, batch_id: str, stores: AllowedStores, *, deadline_s: float = 10.0) -> None:
    """Remove a batch from all lists and increase the fences of its images, in one transaction.

    The transaction also updates the ledger document. After the transaction, no image of the batch can be claimed or
    finished, and the service shows none of them. However, a file server that does not query the service still returns
    published files, so the caller must delete the files at once. The sweep deletes them soon afterwards, in case the
    caller has died. It deletes them once more after the longest lease, because a frozen worker may still have written a
    file.

    :param stores: the stores in which the caller may delete images. The batch is deleted only if all its images belong to
        these stores, and the transaction checks it.
    :param deadline_s: seconds for all attempts together; without it, the driver would continue for two minutes.
    :raises NotFound: when the batch is unknown or already deleted.
    :raises Forbidden: when an image belongs to another store (``foreign_store``). Nothing has been changed.
    :raises StoreAway: when MongoDB does not respond. The deletion may still have taken place; if so, another call
        raises ``NotFound``.
    """
    def write(session: ClientSession) -> None:
        if mark_deleted(db, session, whole_batches.query(batch_id, stores)):
            return
        raise whole_batches.refusal(db, batch_id, session)

    run_transaction(db, write, deadline_s)


def mark_deleted(db: Db, session: ClientSession, listed: Document) -> bool:
    """Do in a transaction what ``begin_delete`` describes. Images that are being deleted already are not counted again.

    :param listed: a filter for the batch, which must include ``listed``.
    :returns: False if no batch matches the filter. Then nothing is changed.
    """
    # Only the batches that a part of the sweep has to handle may be in the index of this part.
    unset = dict.fromkeys(("listed", "open", "spooled", "unswept", "cancelling", "cancelled_by", "reprocessing"), "")
    flags = {"deleting": True, "uncleared": True}
    change = {"$unset": unset, "$set": flags, "$currentDate": {"deleting_at": True}}
    header = db.batches.find_one_and_update(listed, change, {"stores": 1}, session=session)
    if header is None:
        return False
    batch_id = header["_id"]
    tag_counts.remove_batch(db, session, batch_id)  # if images are left, the sweep continues
    images = {"batch_id": batch_id, "status": {"$ne": "deleting"}}
    fenced = {"status": "deleting"} | claims.LEASES.unheld()
    count = db.images.update_many(images, {"$set": fenced, "$inc": {"work.fence": 1}}, session=session).matched_count
    db.ledger.update_one({"_id": batch_id}, {"$set": {"state": "deleted"}, "$inc": {"deleted": count}}, session=session)
    page_index.remove_batch(db, session, batch_id, header["stores"])
    sums.mark_changed(db, session, batch_id)
    return True


def claim_with_files(db: Db) -> str | None:
    """Claim a batch under deletion whose files may not have been deleted yet (called by the sweep).

    A failover cannot undo the deletion of this batch, because a majority of the replica set has confirmed the claim.
    Therefore, it is safe to delete its files.
    """
    # Without ``deleting`` in the filter, MongoDB reads the index of the batches with files only. The documents of the
    # others are kept for some minutes.
    return sweep_claims.claim_batch(db, {"uncleared": True})


def mark_files_deleted(db: Db, batch_id: str) -> None:
    """Record that the files of a batch under deletion have been deleted for the first time.

    A frozen worker may still write new files, so the sweep deletes the files once more before ``finish_delete``.
    """
    with translate_errors():
        db.batches.update_one({"_id": batch_id}, {"$unset": {"uncleared": ""} | sweep_claims.ENDED})


def claim_deletable(db: Db, longest_lease_s: float) -> str | None:
    """Claim a batch that has been under deletion for longer than the longest lease (called by the sweep).

    After this time, no worker writes files of the batch any more.
    """
    return sweep_claims.claim_batch(db, {"deleting": True} | sweep_claims.older_than("deleting_at", longest_lease_s))


def remove_tags(db: Db, batch_id: str) -> bool:
    """Remove the images of a batch under deletion from the counts of tags, as far as the deletion itself has not done so.

    This is done in several transactions, so it can be interrupted at any point and repeated. Each image is removed once.

    :returns: whether all of them have been removed. If not, repeat the call later.
    :raises StoreAway: when MongoDB does not respond.
    """
    after = -1
    for _ in range(_TAG_PARTS):
        last = run_transaction(db, partial(_remove_tags_after, db, batch_id, after), _TAG_PART_S)
        if last is None:
            return True
        after = last
    return False


def finish_delete(db: Db, batch_id: str) -> None:
    """Delete the documents of a batch whose files have been deleted. The ledger document of the batch is kept.

    The documents stay as long as they are in the counts of tags and these are too many for one call.
    """
    if not remove_tags(db, batch_id):
        return
    with translate_errors():
        db.images.delete_many({"batch_id": batch_id, "status": "deleting"})
        db.batches.delete_one({"_id": batch_id, "deleting": True})


def _remove_tags_after(db: Db, batch_id: str, after: int, session: ClientSession) -> int | None:
    return tag_counts.remove_batch(db, session, batch_id, after)
