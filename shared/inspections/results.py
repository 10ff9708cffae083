"""What was made of a picture by a recipe and a model: fields, and pictures in the blob store. Kept for a while after its last use.

A result is named by what went into it, so the same picture under another URL has it already, and no request ever overwrites what
another one was given: each making has a folder of its own, and the result is that of the first. It goes in three steps (marked, its
pictures, its document), so that nobody is given one that is half gone.
"""

from collections.abc import Iterable
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from shared.inspections import recipes
from shared.inspections.recipes import Recipe
from shared.storage.mongo import Db, Document, translate_errors

VERSION: Final = 1
"""Of what is made: a change of code that makes something else of the same picture counts up."""


_NOTED_EVERY_MS: Final = 60_000
"""A use within so long after the last one is not written down."""


def result_id(sha256: str, recipe: Recipe, model: dict[str, str] | None) -> str:
    """Name a result.

    :param sha256: of the picture's bytes.
    :param model: ``Detector.info`` where a model takes part.
    """
    return recipes.digest("result", VERSION, sha256, recipes.as_document(recipe), model)


def use(db: Db, result_id: str) -> Document | None:
    """Give a result, and keep it for longer; None where there is none, or it is being removed.

    :returns: its ``fields``, and the ``folder`` of its pictures.
    :raises StoreAway: MongoDB does not answer.
    """
    there = {"_id": result_id, "going": {"$ne": True}}
    unused_ms = {"$subtract": ["$$NOW", "$used_at"]}
    with translate_errors():
        found = _results(db).find_one(there, {"fields": 1, "folder": 1, "unused_ms": unused_ms})
        if found is not None and found["unused_ms"] > _NOTED_EVERY_MS:
            return _results(db).find_one_and_update(there, {"$currentDate": {"used_at": True}})
        return found


def keep(db: Db, result_id: str, fields: dict[str, Any], folder: str, size: int) -> str | None:
    """Store a result whose pictures are written, unless somebody was faster.

    :param folder: where they lie, see ``shared.storage.blob_keys.inspection_key``.
    :param size: bytes that they take.
    :returns: the folder of the result; None where one of this name is being removed just now: keep it in a moment.
    """
    there = {"_id": result_id, "going": {"$ne": True}}
    made = {"$setOnInsert": {"fields": fields, "folder": folder, "bytes": size}, "$currentDate": {"used_at": True}}
    with translate_errors():
        for _ in range(2):
            try:
                found = _results(db).find_one_and_update(there, made, {"folder": 1}, upsert=True, return_document=ReturnDocument.AFTER)
            except DuplicateKeyError:  # it is going; or another one was stored this moment
                continue
            return str(found["folder"]) if found is not None else None
    return None


def mark_old(db: Db, keep_s: float, max_bytes: int, limit: int) -> list[tuple[str, str]]:
    """Mark results to be removed: those not used for long, and the ones used longest ago while all take more than ``max_bytes`` (sweep).

    :returns: name and folder of everything that is marked, from earlier calls too, up to ``limit``.
    """
    with translate_errors():
        results = _results(db)
        old = {"going": {"$ne": True}, "$expr": {"$lt": ["$used_at", {"$subtract": ["$$NOW", int(keep_s * 1000)]}]}}
        results.update_many(old, {"$set": {"going": True}})
        total = next(iter(results.aggregate([{"$match": {"going": {"$ne": True}}}, {"$group": {"_id": None, "bytes": {"$sum": "$bytes"}}}])), {"bytes": 0})["bytes"]
        if total > max_bytes:
            for row in results.find({"going": {"$ne": True}}, {"bytes": 1, "used_at": 1}).sort("used_at", 1).limit(limit):
                # Only as it was seen: somebody may use it this moment.
                total -= row["bytes"] * results.update_one({"_id": row["_id"], "used_at": row["used_at"]}, {"$set": {"going": True}}).modified_count
                if total <= max_bytes:
                    break
        return [(row["_id"], row["folder"]) for row in results.find({"going": True}, {"folder": 1}).limit(limit)]


def forget(db: Db, result_id: str) -> None:
    """Remove a marked result's document; its pictures are gone (sweep)."""
    with translate_errors():
        _results(db).delete_one({"_id": result_id, "going": True})


def known_folders(db: Db, folders: Iterable[str]) -> set[str]:
    """Give those of these folders that are some result's (sweep)."""
    with translate_errors():
        return {row["folder"] for row in _results(db).find({"folder": {"$in": list(folders)}}, {"folder": 1})}


def _results(db: Db) -> Collection[Document]:
    return db.get_collection("inspection_results", write_concern=WriteConcern(w=1))
