"""Whose store is served next: one small document per store that has, or lately had, work waiting.

``seq`` counts up whenever work arrives, so that a claim which found nothing can say "nothing as of seq" and not wipe out
what arrived meanwhile. A turn lost to a crash is made again by the sweep (``repair``).
"""

from collections.abc import Iterable

from pymongo import UpdateOne
from pymongo.write_concern import WriteConcern

from shared.storage.mongo import Db, Document, translate_errors


def touch(db: Db, stores: Iterable[str]) -> None:
    """Say that these stores have work waiting. Cheap: not journalled, since ``repair`` makes up for a loss."""
    writes = [
        UpdateOne(
            {"_id": store},
            [
                {
                    "$set": {
                        "pending": True,
                        "seq": {"$add": [{"$ifNull": ["$seq", 0]}, 1]},
                        # A store that comes back after a pause has not been served lately, but gains nothing by the pause.
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


def waiting(db: Db, limit: int) -> list[Document]:
    """Give the stores with work, the one served least recently first: ``{_id: store, seq, served_at}``."""
    return list(db.turns.find({"pending": True}).sort("served_at", 1).limit(limit))


def served(db: Db, stores: Iterable[str]) -> None:
    """Put these stores at the end of the line."""
    db.get_collection("turns", write_concern=WriteConcern(w=1)).update_many(
        {"_id": {"$in": sorted(set(stores))}}, [{"$set": {"served_at": "$$NOW"}}]
    )


def rest(db: Db, turn: Document) -> None:
    """Take a store out of the line, unless work arrived since ``turn`` was read."""
    db.turns.update_one({"_id": turn["_id"], "seq": turn["seq"]}, {"$set": {"pending": False}})


def repair(db: Db) -> list[str]:
    """Give a turn to every store that has queued images and no place in the line (sweep). A walk over an index, store by store.

    :returns: the stores that were missing.
    """
    missing = []
    with translate_errors():
        in_line = {turn["_id"] for turn in db.turns.find({"pending": True}, {"_id": 1})}
        store = ""
        while True:
            # From store to store by one look-up each, however much each has waiting.
            row = db.images.find_one(
                {"status": "queued", "store_name": {"$gt": store}}, {"store_name": 1}, sort=[("store_name", 1), ("_id", 1)], hint="claimable"
            )
            if row is None:
                break
            store = row["store_name"]
            if store not in in_line:
                missing.append(store)
        touch(db, missing)
    return missing
