"""The rotation of stores: it determines the store whose images are claimed next.

Each store that has, or recently had, queued images has one small document, which is called its turn. The field ``seq``
of a turn increases whenever images arrive. A claim that finds no image removes the store from the rotation only if
``seq`` is unchanged, so images that have arrived in the meantime are not forgotten. The function ``repair``, which the
sweep calls, restores turns that were lost in a crash.
"""

from collections.abc import Iterable

from pymongo import UpdateOne
from pymongo.write_concern import WriteConcern

from shared.storage.mongo import Db, Document, translate_errors


def touch(db: Db, stores: Iterable[str]) -> None:
    """Record that stores have queued images.

    The write is not journalled, because ``repair`` restores a record that was lost.

    :raises StoreAway: when MongoDB does not respond.
    """
    writes = [
        UpdateOne(
            {"_id": store},
            [
                {
                    "$set": {
                        "pending": True,
                        "seq": {"$add": [{"$ifNull": ["$seq", 0]}, 1]},
                        # A store that had no queued images joins the end of the rotation, so the time without
                        # images gives it no advantage over the stores that waited.
                        "served_at": {"$cond": [{"$eq": ["$pending", True]}, "$served_at", "$$NOW"]},
                    }
                }
            ],
            upsert=True,
        )
        for store in sorted(set(stores))
    ]
    if writes:
        with translate_errors():
            db.get_collection("turns", write_concern=WriteConcern(w=1)).bulk_write(writes, ordered=False)


def list_waiting(db: Db, limit: int) -> list[Document]:
    """Return the turns of stores with queued images, the least recently served store first.

    :returns: documents with the fields ``_id`` (the name of the store), ``seq`` and ``served_at``.
    """
    return list(db.turns.find({"pending": True}).sort("served_at", 1).limit(limit))


def move_to_end(db: Db, stores: Iterable[str]) -> None:
    """Move stores to the end of the rotation."""
    db.get_collection("turns", write_concern=WriteConcern(w=1)).update_many(
        {"_id": {"$in": sorted(set(stores))}}, [{"$set": {"served_at": "$$NOW"}}]
    )


def remove(db: Db, turn: Document) -> None:
    """Remove a store from the rotation, unless images have arrived since ``turn`` was read."""
    db.turns.update_one({"_id": turn["_id"], "seq": turn["seq"]}, {"$set": {"pending": False}})


def repair(db: Db, after: str = "", limit: int = 500) -> tuple[list[str], str]:
    """Add to the rotation the stores that have queued images but are missing from it (called by the sweep).

    A call takes one indexed read for each store that it checks, no matter how many images the store has queued. Repeated
    calls check all stores.

    :param after: the second value that the previous call returned.
    :param limit: maximum number of stores to check.
    :returns: the names of the added stores, and the name of the last checked store, which is empty if there are no more.
    :raises StoreAway: when MongoDB does not respond.
    """
    checked: list[str] = []
    with translate_errors():
        while len(checked) < limit:
            row = db.images.find_one(
                {"status": "queued", "store_name": {"$gt": checked[-1] if checked else after}},
                {"store_name": 1},
                sort=[("store_name", 1), ("_id", 1)],
                hint="claimable",
            )
            if row is None:
                break
            checked.append(row["store_name"])
        in_rotation = {row["_id"] for row in db.turns.find({"_id": {"$in": checked}, "pending": True}, {"_id": 1})}
        missing = [store for store in checked if store not in in_rotation]
        touch(db, missing)
    return missing, checked[-1] if len(checked) == limit else ""
