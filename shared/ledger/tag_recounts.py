"""Counts the images with a tag again, and corrects ``tag_counts`` where it is wrong (called by the sweep).

The counts are exact as long as all writes that tag images also change them. They are not if documents were changed by hand, or
restored from a backup that is not of one moment. After the death of a worker that was tagging images, they are ``due``.
"""

from dataclasses import dataclass

from pymongo.client_session import ClientSession

from shared.storage.mongo import Db, Document, run_raw_transaction, translate_errors


@dataclass(frozen=True, slots=True)
class Correction:
    """A count that was wrong: the images of a store that hold the id of a tag. ``before`` is 0 if the count was missing."""

    tag: str
    store: str
    before: int
    after: int


def find_tags(db: Db, after: str, limit: int) -> list[str]:
    """Return the first ids of tags that follow ``after``, in their order, also those of merged and deleted tags.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return [row["_id"] for row in db.tags.find({"_id": {"$gt": after}}, {"_id": 1}).sort("_id", 1).limit(limit)]


def find_due(db: Db, limit: int) -> list[str]:
    """Return the ids of tags with counts that must be counted again, because a worker died while it tagged images.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        rows = list(db.tag_counts.find({"due": True}, {"tag": 1}).limit(limit))
    return sorted({row["tag"] for row in rows})


def recount(db: Db, tag_id: str, *, deadline_s: float) -> list[Correction]:
    """Count the images that hold the id of a tag, for each store, and correct the counts. Counts that are 0 are deleted.

    This is one transaction. It conflicts with others that change the same counts, and is then repeated. A count that is open,
    because a part of a job changes images of the store, stays as it is.

    :returns: what was wrong, apart from counts that were due. Counts that are 0 and were stored as 0 are not among them.
    :raises TooSlow: when counting takes longer than ``deadline_s``, because the tag has too many images. Nothing was changed.
    :raises StoreAway: when MongoDB does not respond.
    """

    def write(session: ClientSession) -> list[Correction]:
        stored = {row["store"]: row for row in db.tag_counts.find({"tag": tag_id}, session=session)}
        # Also images under deletion: as long as they have tags, they count.
        pipeline: list[Document] = [{"$match": {"tags.id": tag_id}}, {"$group": {"_id": "$store_name", "n": {"$sum": 1}}}]
        images = {row["_id"]: row["n"] for row in db.images.aggregate(pipeline, session=session, hint="tagged")}
        wrong = []
        for store in sorted(stored.keys() | images.keys()):
            row, after = stored.get(store), images.get(store, 0)
            if row is not None and row.get("open", 0) > 0:
                continue
            _store(db, session, tag_id, store, row, after)
            before = row["n"] if row is not None else 0
            if before != after and not (row or {}).get("due"):
                wrong.append(Correction(tag_id, store, before, after))
        return wrong

    with translate_errors():
        return run_raw_transaction(db, write, deadline_s)


def _store(db: Db, session: ClientSession, tag_id: str, store: str, row: Document | None, after: int) -> None:
    if row is None:
        db.tag_counts.insert_one({"_id": f"{tag_id}:{store}", "tag": tag_id, "store": store, "n": after}, session=session)
    elif after == 0:
        db.tag_counts.delete_one({"_id": row["_id"]}, session=session)
    elif row["n"] != after or "due" in row:
        db.tag_counts.update_one({"_id": row["_id"]}, {"$set": {"n": after}, "$unset": {"due": ""}}, session=session)
