"""Removes the ids of merged and deleted tags from images. The sweep calls these functions.

Nothing that anybody sees depends on it, because names are resolved when they are shown: an id of a merged tag means the
other tag, and an id of a deleted tag means nothing. Each step is one transaction, which also changes the counts, so the
steps can be interrupted and repeated at any point.
"""

from collections import Counter
from typing import Final

from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from shared.catalog import tags
from shared.catalog.tag_rules import MAX_TAGS
from shared.catalog.tags import ACTIVE
from shared.ledger import sweep_claims, tag_counts
from shared.queue.leases import now_plus
from shared.storage.mongo import Db, Document, run_transaction, translate_errors

MAX_IMAGES: Final = 250
"""Maximum number of images in a transaction."""
WRITERS_S: Final = 120.0
"""For how many seconds after the retirement of a tag its id can still be written by what has read the tag before: a transaction,
which MongoDB ends after 15 s in both deployments (60 s by default), or a part of a job, which writes images for up to 40 s after
it has read the tags (``bulk_parts``: a transaction of 12 s, 20 s for the commands, and 5 s for the last of them)."""
REMEMBERED_S: Final = 25 * 3600.0
"""For how long the document of a tag is kept after no image holds its id, because bulk tagging can be undone for a day."""
_DEADLINE_S: Final = 10.0
_READ_MS: Final = 5000


def find(db: Db, limit: int) -> list[str]:
    """Return the ids of tags that were merged or deleted, and whose ids images can hold.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return [row["_id"] for row in db.tags.find({"is_retired": True}, {"_id": 1}).limit(limit)]


def find_deleted(db: Db) -> tuple[str, ...]:
    """Return the ids that mean no tag, and that images can still hold: those of deleted tags, and of tags merged into them.

    The sweep removes them from the images, so they are few. At most ``MAX_TAGS`` are returned.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return read_deleted(db, None)


def read_deleted(db: Db, session: ClientSession | None) -> tuple[str, ...]:
    """Do the same as ``find_deleted``, in a transaction if there is a session. Errors of the driver pass."""
    stages: list[Document] = [
        {"$match": {"is_retired": True}},
        {"$group": {"_id": "$merged_into", "ids": {"$push": "$_id"}}},  # deleted tags are merged into none
        {"$lookup": {"from": "tags", "localField": "_id", "foreignField": "_id", "as": "targets"}},
        {"$match": {"targets.key": {"$not": ACTIVE}}},
        {"$unwind": "$ids"},
        {"$limit": MAX_TAGS},
    ]
    return tuple(row["ids"] for row in db.tags.aggregate(stages, session=session, maxTimeMS=_READ_MS))


def clean_images(db: Db, tag_id: str) -> int:
    """Remove the id of a retired tag from up to ``MAX_IMAGES`` images. If it was merged, the id of the other tag takes its place.

    An image that holds both ids keeps the first one's place, and who tagged it then, as it was shown before.

    :returns: the number of images that have been changed. 0 means that no image holds the id.
    :raises StoreAway: when MongoDB does not respond. The images may still have been changed.
    """

    def write(session: ClientSession) -> int:
        target_id = tags.find_present_ids(db, session, [tag_id]).get(tag_id)
        if target_id == tag_id:
            return 0  # it is not retired
        fields = {"store_name": 1, "tags": 1}
        images = list(db.images.find({"tags.id": tag_id}, fields, session=session, hint="tagged").limit(MAX_IMAGES))
        if images:
            _replace(db, session, images, tag_id, target_id)
        return len(images)

    return run_transaction(db, write, _DEADLINE_S)


def forget(db: Db, tag_id: str) -> bool:
    """Mark a retired tag for deletion if no image holds its id and no transaction can still write it.

    :returns: whether the tag has been marked. If not, the sweep has to look at it again.
    :raises StoreAway: when MongoDB does not respond.
    """
    retired = {"_id": tag_id, "is_retired": True} | sweep_claims.older_than("retired_at", WRITERS_S)

    def write(session: ClientSession) -> bool:
        if db.images.find_one({"tags.id": tag_id}, {"_id": 1}, session=session, hint="tagged") is not None:
            return False
        update: list[Document] = [{"$set": {"expires_at": now_plus(REMEMBERED_S)}}, {"$unset": "is_retired"}]
        if not db.tags.update_one(retired, update, session=session).matched_count:
            return False
        db.tag_counts.delete_many({"tag": tag_id}, session=session)
        return True

    return run_transaction(db, write, _DEADLINE_S)


def _replace(db: Db, session: ClientSession, images: list[Document], tag_id: str, target_id: str | None) -> None:
    deltas: Counter[tuple[str, str]] = Counter()
    alike, others = [], []
    for image in images:
        kept = _without_retired(image["tags"], tag_id, target_id)
        if target_id is None or len(kept) == len(image["tags"]):
            alike.append(image["_id"])
        else:
            others.append(UpdateOne({"_id": image["_id"]}, {"$set": {"tags": kept}}))
        deltas.update(tag_counts.deltas_of([image | {"tags": kept}], 1))
        deltas.update(tag_counts.deltas_of([image], -1))
    # One update of many images takes about half of the time of an update for each of them (measured).
    if target_id is None:
        db.images.update_many({"_id": {"$in": alike}}, {"$pull": {"tags": {"id": tag_id}}}, session=session)
    elif alike:
        only = [{"tag.id": tag_id}]
        db.images.update_many({"_id": {"$in": alike}}, {"$set": {"tags.$[tag].id": target_id}}, array_filters=only, session=session)
    if others:
        db.images.bulk_write(others, ordered=False, session=session)
    tag_counts.change(db, session, deltas)


def _without_retired(applied: list[Document], tag_id: str, target_id: str | None) -> list[Document]:
    """Return the tags of an image with ``target_id`` in place of ``tag_id``, or without it if ``target_id`` is None."""
    kept: dict[str, Document] = {}
    for entry in applied:
        present_id = target_id if entry["id"] == tag_id else entry["id"]
        if present_id is not None:
            kept.setdefault(present_id, entry | {"id": present_id})
    return list(kept.values())
