"""The rotation of stores: which store is served next.

There is one small document for each store that has, or recently had, queued images.

``seq`` increases whenever work arrives, so that a claim which found nothing can remove the store "as of seq" and does
not erase work that arrived meanwhile. The sweep restores turns that were lost in a crash (``repair``).
"""

from collections.abc import Iterable

from pymongo import UpdateOne
from pymongo.write_concern import WriteConcern

from shared.storage.mongo import Db, Document, translate_errors


def touch(db: Db, stores: Iterable[str]) -> None:
    """Record that these stores have queued images. Not journalled, because it is cheap to lose: ``repair`` restores it.

    :raises StoreAway: MongoDB does not answer.
    """
    writes = [
        UpdateOne(
            {"_id": store},
            [
                {
                    "$set": {
                        "pending": True,
                        "seq": {"$add": [{"$ifNull": ["$seq", 0]}, 1]},
                        # A store that returns after a pause was not served recently, but gains nothing by the pause.
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
    """Return the turns of stores with queued images, the least recently served first.

    :returns: documents ``{_id: store, seq, served_at}``.
    """
    return list(db.turns.find({"pending": True}).sort("served_at", 1).limit(limit))


def move_to_end(db: Db, stores: Iterable[str]) -> None:
    """Move these stores to the end of the rotation."""
    db.get_collection("turns", write_concern=WriteConcern(w=1)).update_many(
        {"_id": {"$in": sorted(set(stores))}}, [{"$set": {"served_at": "$$NOW"}}]
    )


def remove(db: Db, turn: Document) -> None:
    """Remove a store from the rotation, unless work arrived since ``turn`` was read."""
    db.turns.update_one({"_id": turn["_id"], "seq": turn["seq"]}, {"$set": {"pending": False}})


def repair(db: Db) -> list[str]:
    """Give a turn to every store that has queued images and none (sweep). Walks over an index, from store to store.

    :returns: the stores that had no turn.
    :raises StoreAway: MongoDB does not answer.
    """
    missing = []
    with translate_errors():
        in_rotation = {turn["_id"] for turn in db.turns.find({"pending": True}, {"_id": 1})}
        store = ""
        while True:
            # One indexed read for each store, however many images it has queued.
            row = db.images.find_one(
                {"status": "queued", "store_name": {"$gt": store}},
                {"store_name": 1},
                sort=[("store_name", 1), ("_id", 1)],
                hint="claimable",
            )
            if row is None:
                break
            store = row["store_name"]
            if store not in in_rotation:
                missing.append(store)
        touch(db, missing)
    return missing
