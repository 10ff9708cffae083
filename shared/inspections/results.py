"""Results of inspections: fields, and image files in the blob store. They are kept for a while after their last use.

The id of a result is derived from everything that determines it, so an inspection of the same image under another URL
finds it. No request overwrites what another one was given: each run writes its files to a folder of its own, and the
run that stores first is the result. A result is removed in three steps (mark, files, document), so that no request gets
a result of which half is gone.
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
"""Version of the results: increase it when the code makes something else of the same image."""
_RECORD_USE_EVERY_MS: Final = 60_000
"""A use within this time after the last recorded one is not recorded."""


def result_id(sha256: str, recipe: Recipe, model: dict[str, str] | None) -> str:
    """Return the id of a result.

    :param sha256: of the image's bytes.
    :param model: ``Detector.info`` if the recipe uses the model, else None.
    """
    return recipes.digest("result", VERSION, sha256, recipes.to_document(recipe), model)


def use(db: Db, result_id: str) -> Document | None:
    """Return a result and record its use, which extends its life.

    :returns: a document with its ``fields`` and the ``folder`` of its files; None when there is none, or it is being
        removed.
    :raises StoreAway: MongoDB does not answer.
    """
    present = {"_id": result_id, "going": {"$ne": True}}
    unused_ms = {"$subtract": ["$$NOW", "$used_at"]}
    with translate_errors():
        found = _results(db).find_one(present, {"fields": 1, "folder": 1, "unused_ms": unused_ms})
        if found is not None and found["unused_ms"] > _RECORD_USE_EVERY_MS:
            return _results(db).find_one_and_update(present, {"$currentDate": {"used_at": True}})
        return found


def store(db: Db, result_id: str, fields: dict[str, Any], folder: str, size: int) -> str | None:
    """Store a result whose files are written, unless another run has stored it.

    :param folder: of the files, see ``shared.storage.blob_keys.inspection_key``.
    :param size: bytes that the files take.
    :returns: the folder of the stored result; None when a result of this id is being removed: retry later.
    :raises StoreAway: MongoDB does not answer.
    """
    present = {"_id": result_id, "going": {"$ne": True}}
    change = {"$setOnInsert": {"fields": fields, "folder": folder, "bytes": size}, "$currentDate": {"used_at": True}}
    with translate_errors():
        for _ in range(2):
            try:
                found = _results(db).find_one_and_update(
                    present, change, {"folder": 1}, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # it is being removed; or another run stored it at the same time
                continue
            return str(found["folder"]) if found is not None else None
    return None


def mark_expired(db: Db, keep_s: float, max_bytes: int, limit: int) -> list[tuple[str, str]]:
    """Mark results for removal (sweep).

    These are the results that were not used for ``keep_s`` seconds, and the least recently used ones while all results
    take more than ``max_bytes``.

    :returns: id and folder of at most ``limit`` marked results, including those of earlier calls.
    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        results = _results(db)
        kept = {"going": {"$ne": True}}
        old = {**kept, "$expr": {"$lt": ["$used_at", {"$subtract": ["$$NOW", int(keep_s * 1000)]}]}}
        results.update_many(old, {"$set": {"going": True}})
        sums = results.aggregate([{"$match": kept}, {"$group": {"_id": None, "bytes": {"$sum": "$bytes"}}}])
        total = next(iter(sums), {"bytes": 0})["bytes"]
        if total > max_bytes:
            for row in results.find(kept, {"bytes": 1, "used_at": 1}).sort("used_at", 1).limit(limit):
                # Only if it was not used since it was read.
                unused = {"_id": row["_id"], "used_at": row["used_at"]}
                total -= row["bytes"] * results.update_one(unused, {"$set": {"going": True}}).modified_count
                if total <= max_bytes:
                    break
        return [(row["_id"], row["folder"]) for row in results.find({"going": True}, {"folder": 1}).limit(limit)]


def delete_marked(db: Db, result_id: str) -> None:
    """Remove the document of a marked result whose files are gone (sweep).

    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        _results(db).delete_one({"_id": result_id, "going": True})


def known_folders(db: Db, folders: Iterable[str]) -> set[str]:
    """Return those of these folders that belong to a result (sweep).

    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        return {row["folder"] for row in _results(db).find({"folder": {"$in": list(folders)}}, {"folder": 1})}


def _results(db: Db) -> Collection[Document]:
    return db.get_collection("inspection_results", write_concern=WriteConcern(w=1))
