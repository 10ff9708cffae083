"""Deletes one image in three steps, as ``shared.ledger.deletion`` deletes a batch.

First, the image is removed from everything that shows or counts it, and its fence is increased. Then its files are deleted,
twice. Finally, its document is deleted. If no other image of its batch stands, the whole batch is deleted instead.
"""

from contextlib import suppress
from dataclasses import dataclass

from pymongo.client_session import ClientSession

from shared import failpoints
from shared.allowed_stores import AllowedStores
from shared.catalog.image_changes import Precondition, find_changeable
from shared.errors import ShelfsightError
from shared.ledger import closing, standing_images, sweep_claims
from shared.storage.blob_keys import batch_prefix, image_prefix, original_key, spool_key
from shared.storage.blobs import BlobStore
from shared.storage.mongo import Db, Document, run_transaction, translate_errors
from shared.storage.schema import EPOCH


@dataclass(frozen=True, slots=True)
class DeletedImage:
    """An image that is being deleted. ``with_batch`` says that its batch is deleted, too."""

    id: str
    batch_id: str
    ext: str
    with_batch: bool


def begin_delete(
    db: Db,
    image_id: str,
    stores: AllowedStores,
    *,
    precondition: Precondition = lambda _: None,
    deadline_s: float = 10.0,
) -> DeletedImage:
    """Remove an image from its batch, all lists and all counts, and increase its fence, in one transaction.

    Afterwards, the caller must call ``complete``. If it dies before, the sweep does the same.

    :param stores: the stores in which the caller may delete images.
    :param precondition: is called with the stored image before anything is changed.
    :param deadline_s: seconds for all attempts together.
    :raises NotFound: when the image is unknown or already deleted.
    :raises Forbidden: when it belongs to another store (``foreign_store``). Nothing has been changed.
    :raises StoreAway: when MongoDB does not respond. The deletion may still have taken place; if so, another call
        raises ``NotFound``.
    """

    def write(session: ClientSession) -> DeletedImage:
        image = find_changeable(db, session, image_id, stores)
        precondition(image)
        with_batch = standing_images.remove_image(db, session, image)
        failpoints.reach("10-image-deletion-uncommitted")
        return DeletedImage(image_id, image["batch_id"], image["work"]["ext"], with_batch)

    deleted = run_transaction(db, write, deadline_s)
    failpoints.reach("10-image-deletion-committed")
    return deleted


def complete(db: Db, blobs: BlobStore, deleted: DeletedImage) -> None:
    """Delete the files of an image for the first time, and close its batch if its other images are finished.

    Errors are ignored, because the sweep does both, too.
    """
    with suppress(ShelfsightError):
        if deleted.with_batch:
            blobs.delete(spool_key(deleted.batch_id))  # first, because originals are restored from it
            blobs.delete_tree(batch_prefix(deleted.batch_id))
        else:
            _delete_files(blobs, deleted.id, deleted.ext)
    failpoints.reach("10-image-files-deleted")
    if not deleted.with_batch:
        with suppress(ShelfsightError):
            closing.close_batches(db, [deleted.batch_id])


def claim_with_files(db: Db) -> str | None:
    """Claim an image under deletion whose files may not have been deleted yet (called by the sweep).

    A failover cannot undo its deletion, because a majority of the replica set has confirmed the claim.
    """
    return sweep_claims.claim_image(db, {"uncleared": True})


def mark_files_deleted(db: Db, image_id: str) -> None:
    """Record that the files of an image under deletion have been deleted for the first time.

    A frozen worker may still write new files, so the sweep deletes the files once more before ``finish_delete``.
    """
    with translate_errors():
        db.images.update_one({"_id": image_id}, {"$unset": {"uncleared": ""} | sweep_claims.ENDED})


def claim_deletable(db: Db, longest_lease_s: float) -> str | None:
    """Claim an image that has been under deletion for longer than the longest lease (called by the sweep).

    After this time, no worker writes files of the image any more.
    """
    due = {"deleting_at": {"$gt": EPOCH}} | sweep_claims.older_than("deleting_at", longest_lease_s)
    return sweep_claims.claim_image(db, due)


def delete_files(db: Db, blobs: BlobStore, image_id: str) -> None:
    """Delete the files of an image under deletion (called by the sweep). Without its document, there is nothing to do.

    :raises StoreAway: when MongoDB or the blob store does not respond.
    """
    with translate_errors():
        image: Document | None = db.images.find_one({"_id": image_id, "status": "deleting"}, {"work.ext": 1})
    if image is not None:
        _delete_files(blobs, image_id, image["work"]["ext"])


def finish_delete(db: Db, image_id: str) -> None:
    """Delete the document of an image whose files have been deleted. The ledger document of its batch counts it."""
    with translate_errors():
        db.images.delete_one({"_id": image_id, "status": "deleting"})


def _delete_files(blobs: BlobStore, image_id: str, ext: str) -> None:
    # The folder with the link by which file servers find all files of the image is deleted first.
    blobs.delete_tree(image_prefix(image_id))
    blobs.delete(original_key(image_id, ext))
