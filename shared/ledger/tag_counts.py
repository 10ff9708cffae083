"""How many images of each store hold the id of a tag.

Each transaction that changes the ``tags`` or the store of images also changes these counts, so they are exact sums over all
documents of images. A deletion removes the tags of an image, so it does not count any more. If a batch has so many tags that
their removal would take too long for one transaction, the sweep removes the rest soon afterwards. The documents are those of
``shared.storage.schema.tags.TagCount``. ``tag_recounts`` corrects counts that are wrong for another reason.

A part of a job tags images outside a transaction. While it does, ``open`` of its counts is above 0, and they can be too
large, but not too small. So who counts the images again must leave out counts that are open, and write the others in the
transaction that has read the images. A count that is ``due`` may be wrong until then.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.storage.mongo import Db, Document, translate_errors

_BY_BATCH: Final = [("batch_id", 1), ("index", 1)]
_MAX_PAIRS: Final = 2000
"""With this number of pairs of a tag and a store, ``remove_batch`` ends. Each pair is one update."""
_MAX_ENTRIES: Final = 5000
"""With this number of tags of images, ``remove_batch`` ends."""
_AT_ONCE: Final = 50
Deltas = Mapping[tuple[str, str], int]
"""By how much counts change. The keys are pairs of a tag id and the name of a store."""


def change(db: Db, session: ClientSession, deltas: Deltas) -> None:
    """Change counts in a transaction. The caller lets errors of the driver pass, so that the transaction is repeated.

    Where a tag had no image in a store and now gets one, the tag itself is written, too. Who may change tags only in some stores
    writes it after checking that no other store uses it (``is_used_outside``), so the two transactions conflict.
    """
    _mark_new_stores(db, session, deltas)
    # Sorted, so that two transactions that change the same counts meet at the first of them.
    operations = [
        UpdateOne(
            {"_id": f"{tag_id}:{store}"},
            {"$inc": {"n": delta}, "$setOnInsert": {"tag": tag_id, "store": store}},
            upsert=True,
        )
        for (tag_id, store), delta in sorted(deltas.items())
        if delta
    ]
    if operations:
        db.tag_counts.bulk_write(operations, session=session)


def _mark_new_stores(db: Db, session: ClientSession, deltas: Deltas) -> None:
    added = {f"{tag_id}:{store}": tag_id for (tag_id, store), delta in deltas.items() if delta > 0}
    if not added:
        return
    used = {row["_id"] for row in db.tag_counts.find({"_id": {"$in": sorted(added)}, "n": {"$gt": 0}}, {"_id": 1}, session=session)}
    new = sorted({tag_id for row_id, tag_id in added.items() if row_id not in used})
    if new:
        db.tags.update_many({"_id": {"$in": new}}, {"$inc": {"uses": 1}}, session=session)


def begin_part(db: Db, session: ClientSession, pairs: Deltas) -> None:
    """Begin, in a transaction, a part of a job that will change these counts.

    :param pairs: by how much the counts can increase, which is added at once; 0 or less for a count that can only decrease.
    """
    _mark_new_stores(db, session, pairs)
    operations = [
        UpdateOne(
            {"_id": f"{tag_id}:{store}"},
            {"$inc": {"n": max(0, most), "open": 1}, "$setOnInsert": {"tag": tag_id, "store": store}},
            upsert=True,
        )
        for (tag_id, store), most in sorted(pairs.items())
    ]
    if operations:
        db.tag_counts.bulk_write(operations, session=session)


def end_part(db: Db, session: ClientSession, corrections: Deltas, due: Collection[tuple[str, str]]) -> None:
    """End, in a transaction, a part of a job.

    :param corrections: by how much the counts differ from what ``begin_part`` has made of them, for each of its pairs.
    :param due: the pairs whose images must be counted again.
    """
    operations = [
        # Without ``upsert``: if the counts of a tag were deleted meanwhile, the tag was deleted, too.
        UpdateOne({"_id": f"{tag_id}:{store}"}, {"$inc": {"n": delta, "open": -1}} | ({"$set": {"due": True}} if (tag_id, store) in due else {}))
        for (tag_id, store), delta in sorted(corrections.items())
    ]
    if operations:
        db.tag_counts.bulk_write(operations, session=session)


def deltas_of(images: Iterable[Document], sign: int) -> Counter[tuple[str, str]]:
    """Return the deltas of images that are added (``sign`` 1) or removed (-1).

    :param images: stored images with at least ``store_name`` and ``tags``.
    """
    deltas: Counter[tuple[str, str]] = Counter()
    for image in images:
        for tag_id in {applied["id"] for applied in image.get("tags") or ()}:
            deltas[tag_id, image["store_name"]] += sign
    return deltas


def remove_batch(db: Db, session: ClientSession, batch_id: str, after: int = -1) -> int | None:
    """Remove images of a batch that is being deleted from the counts, and their tags from them, in a transaction.

    :param after: only images with a greater index are removed.
    :returns: None if none of these images has tags any more. Otherwise, the transaction would have become too large: the index
        after which to continue in another one.
    """
    tagged = {"batch_id": batch_id, "index": {"$gt": after}, "tags.id": {"$gt": ""}}
    fields = {"index": 1, "store_name": 1, "tags.id": 1}
    images = db.images.find(tagged, fields, session=session, hint=_BY_BATCH).sort(_BY_BATCH).batch_size(_AT_ONCE)
    deltas: Counter[tuple[str, str]] = Counter()
    ids, entries, last = [], 0, None
    for image in images:
        ids.append(image["_id"])
        deltas.update(deltas_of([image], -1))
        entries += len(image["tags"])
        if len(deltas) >= _MAX_PAIRS or entries >= _MAX_ENTRIES:
            last = int(image["index"])
            break
    if ids:
        change(db, session, deltas)
        db.images.update_many({"_id": {"$in": ids}}, {"$set": {"tags": []}}, session=session)
    return last


def count(db: Db, tag_ids: Mapping[str, Collection[str]], stores: AllowedStores, *, deadline_ms: int = 5000) -> dict[str, int]:
    """Return for each tag how many images of the stores hold one of its ids.

    An image that holds two ids of a tag counts twice until the sweep has cleaned up the id that was merged.

    :param tag_ids: for each tag, its id, and those of tags that were merged into it. No id belongs to two tags.
    :raises StoreAway: when MongoDB does not respond.
    :raises TooSlow: when the deadline has passed.
    """
    tag_of = {tag_id: tag for tag, ids in tag_ids.items() for tag_id in ids}
    counts = dict.fromkeys(tag_ids, 0)
    if not tag_of:
        return counts
    query: dict[str, Any] = {"tag": {"$in": sorted(tag_of)}} | ({} if stores is None else {"store": {"$in": sorted(stores)}})
    pipeline = [{"$match": query}, {"$group": {"_id": "$tag", "n": {"$sum": "$n"}}}]
    with translate_errors():
        for row in db.tag_counts.aggregate(pipeline, maxTimeMS=deadline_ms):
            counts[tag_of[row["_id"]]] += row["n"]
    return counts


def is_used_outside(db: Db, session: ClientSession, tag_ids: Collection[str], stores: AllowedStores) -> bool:
    """Return whether an image of another store than ``stores`` holds one of the ids. Errors of the driver pass."""
    if stores is None:
        return False
    query = {"tag": {"$in": sorted(tag_ids)}, "store": {"$nin": sorted(stores)}, "n": {"$gt": 0}}
    return db.tag_counts.find_one(query, {"_id": 1}, session=session) is not None
