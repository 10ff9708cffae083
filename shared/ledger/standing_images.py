"""Deletes or moves a single image, in a transaction of the caller, so that its batch and the ledger stay true.

A batch consists of its images that stand, that is, of those that are not being deleted: ``total``, ``bytes``, ``counts`` and
``stores`` are about these. The ledger document of the batch counts the others as deleted. Both functions write the batch, so
two of them for the same batch never see each other's image unchanged: one is repeated.
"""

from typing import Any, Final

from pymongo.client_session import ClientSession

from shared.errors import NotFound
from shared.ids import batch_range
from shared.ledger import claims, deletion, page_index, sums, tag_counts
from shared.ledger.batch_images import VISIBLE
from shared.states import batch_state
from shared.storage.mongo import Db, Document

_BY_BATCH: Final = [("batch_id", 1), ("index", 1)]
_BY_STORE: Final = [("store_name", 1), ("_id", -1)]


def remove_image(db: Db, session: ClientSession, image: Document) -> bool:
    """Begin to delete an image: mark it, increase its fence, and remove it from its batch, the lists and the counts.

    Afterwards, no worker can claim or finish the image. If the batch is open and none of its other images is unfinished,
    the caller must close it after the transaction.

    :param image: the stored image, read in this transaction. It is not being deleted yet.
    :returns: whether the whole batch is deleted with the image, because no other image of it stands.
    :raises NotFound: when the batch does not exist.
    """
    batch_id = image["batch_id"]
    header = _read_header(db, session, batch_id)
    others = {"batch_id": batch_id, "status": VISIBLE, "_id": {"$ne": image["_id"]}}
    if db.images.find_one(others, {"_id": 1}, session=session, hint=_BY_BATCH) is None:
        return deletion.mark_deleted(db, session, {"_id": batch_id, "listed": True})
    marked = {"status": "deleting", "uncleared": True, "tags": []} | claims.LEASES.unheld()
    update = {"$set": marked, "$inc": {"work.fence": 1}, "$currentDate": {"deleting_at": True}}
    db.images.update_one({"_id": image["_id"]}, update, session=session)
    change: dict[str, Any] = {"$inc": {"total": -1, "bytes": -image["file_size"], "revision": 1}}
    fields: dict[str, Any] = {"stores": _leave_store(db, session, header, image)}
    if header["counts"] is not None:
        counts = header["counts"] | {image["status"]: max(0, header["counts"].get(image["status"], 0) - 1)}
        fields |= {"counts": counts, "status": batch_state(counts, header["total"] - 1).value}
    db.batches.update_one({"_id": batch_id}, change | {"$set": fields}, session=session)
    db.ledger.update_one({"_id": batch_id}, {"$inc": {"deleted": 1}}, session=session)
    sums.mark_changed(db, session, batch_id)
    tag_counts.change(db, session, tag_counts.deltas_of([image], -1))
    return False


def move_image(db: Db, session: ClientSession, image: Document, store: str) -> None:
    """Do what a move of an image to another store needs beside the change of its ``store_name``, which is the caller's.

    If the image is queued, the caller must call ``turns.touch`` with its new turn after the transaction.

    :param image: the stored image, read in this transaction, with its present store.
    :raises NotFound: when the batch does not exist.
    """
    batch_id = image["batch_id"]
    header = _read_header(db, session, batch_id)
    stores = set(_leave_store(db, session, header, image))
    if store not in stores:
        page_index.enter_store(db, session, batch_id, store)
    change = {"$set": {"stores": sorted(stores | {store})}, "$inc": {"revision": 1}}
    db.batches.update_one({"_id": batch_id}, change, session=session)
    moved = tag_counts.deltas_of([image], -1)
    moved.update(tag_counts.deltas_of([image | {"store_name": store}], 1))
    tag_counts.change(db, session, moved)


def _read_header(db: Db, session: ClientSession, batch_id: str) -> Document:
    fields = dict.fromkeys(("stores", "total", "counts"), 1)
    header = db.batches.find_one({"_id": batch_id, "listed": True}, fields, session=session)
    if header is None:
        raise NotFound("There is no such image.")
    return header


def _leave_store(db: Db, session: ClientSession, header: Document, image: Document) -> list[str]:
    """Return the stores of a batch without an image, after removing the batch from the list of a store that it leaves."""
    store, stores = image["store_name"], list(header["stores"])
    others = {"store_name": store, "_id": batch_range(header["_id"]) | {"$ne": image["_id"]}, "status": VISIBLE}
    if store not in stores or db.images.find_one(others, {"_id": 1}, session=session, hint=_BY_STORE) is not None:
        return stores
    page_index.leave_store(db, session, header["_id"], store)
    return [name for name in stores if name != store]
