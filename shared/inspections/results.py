"""Results of inspections: fields in MongoDB, and image files in the blob store.

Results are kept for a while after their last use. The id of a result is derived from everything that determines the
result, so an inspection of the same image under another URL finds it. Each run of an inspection writes its files to its
own folder, and the run that stores its document first provides the result. Therefore, no run overwrites files that were
already returned to a client. A result is removed in three steps (mark it, delete the files, delete the document), so no
request gets a result that is only partly there.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from shared.inspections import recipes
from shared.inspections.recipes import Recipe
from shared.storage.mongo import Db, Document, translate_errors

VERSION: Final = 1
"""Version of the results. Increase it when a change of the code changes the result for the same image and recipe."""
_EPOCH: Final = datetime(1970, 1, 1)
_RECORD_USE_EVERY_MS: Final = 60_000
"""Minimum interval between two recorded uses of a result. Uses in between are not recorded, which saves writes."""


def result_id(sha256: str, recipe: Recipe, model: dict[str, str] | None) -> str:
    """Return the id of a result.

    :param sha256: SHA-256 digest of the image's bytes.
    :param model: ``Detector.info`` if the recipe uses the model; otherwise, None.
    """
    return recipes.digest("result", VERSION, sha256, recipes.to_document(recipe), model)


def use(db: Db, result_id: str) -> Document | None:
    """Return a result and record its use, so that it is kept longer.

    :returns: a document with the ``fields`` of the result and the ``folder`` of its files; None if the result does not
        exist or is being removed.
    :raises StoreAway: when MongoDB does not respond.
    """
    present = {"_id": result_id, "going": {"$ne": True}}
    unused_ms = {"$subtract": ["$$NOW", "$used_at"]}
    with translate_errors():
        found = _results(db).find_one(present, {"fields": 1, "folder": 1, "unused_ms": unused_ms})
        if found is not None and found["unused_ms"] > _RECORD_USE_EVERY_MS:
            return _results(db).find_one_and_update(present, {"$currentDate": {"used_at": True}})
        return found


def store(db: Db, result_id: str, fields: dict[str, Any], folder: str, size: int) -> str | None:
    """Store a result, unless another run of the inspection has already stored one. The files must have been written.

    :param folder: folder of the files; see ``shared.storage.blob_keys.inspection_key``.
    :param size: total size of the files in bytes.
    :returns: the folder of the stored result. None if a result with this id is being removed; the caller
        must then retry later.
    :raises StoreAway: when MongoDB does not respond.
    """
    present = {"_id": result_id, "going": {"$ne": True}}
    change = {"$setOnInsert": {"fields": fields, "folder": folder, "bytes": size}, "$currentDate": {"used_at": True}}
    with translate_errors():
        for _ in range(2):
            try:
                found = _results(db).find_one_and_update(
                    present, change, {"folder": 1}, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # the result is being removed, or another run stored it at the same time
                continue
            return str(found["folder"]) if found is not None else None
    return None


def mark_expired(db: Db, keep_s: float, max_bytes: int, limit: int) -> list[tuple[str, str]]:
    """Mark results for removal (called by the sweep).

    Results that were not used for ``keep_s`` seconds are marked. If the remaining results together take more than
    ``max_bytes``, the least recently used of them are marked, too, until the unmarked results fit.

    :param limit: maximum number of results that a call returns. It is also the maximum number of results that a call
        marks because of ``max_bytes``; the number of results that are marked because of ``keep_s`` is not limited.
    :returns: the ids and folders of marked results, including results that earlier calls have marked.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        results = _results(db)
        kept = {"going": {"$ne": True}}
        old = {**kept, "$expr": {"$lt": ["$used_at", {"$subtract": ["$$NOW", int(keep_s * 1000)]}]}}
        results.update_many(old, {"$set": {"going": True}})
        total = _sum_bytes(results, kept)
        if total > max_bytes:
            for row in results.find(kept, {"bytes": 1, "used_at": 1}).sort("used_at", 1).limit(limit):
                # Mark the result only if it was not used after it was read.
                unused = {"_id": row["_id"], "used_at": row["used_at"]}
                total -= row["bytes"] * results.update_one(unused, {"$set": {"going": True}}).modified_count
                if total <= max_bytes:
                    break
        return [(row["_id"], row["folder"]) for row in results.find({"going": True}, {"folder": 1}).limit(limit)]


def _sum_bytes(results: Collection[Document], query: Document) -> int:
    # All results meet the condition on ``used_at``. Without it, MongoDB would read each document, not only the index.
    indexed = {"$match": {"used_at": {"$gte": _EPOCH}, **query}}
    sums = results.aggregate([indexed, {"$group": {"_id": None, "bytes": {"$sum": "$bytes"}}}], hint="sizes")
    return int(next(iter(sums), {"bytes": 0})["bytes"])


def delete_marked(db: Db, result_id: str) -> None:
    """Delete the document of a marked result after its files have been deleted (called by the sweep).

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        _results(db).delete_one({"_id": result_id, "going": True})


def known_folders(db: Db, folders: Iterable[str]) -> set[str]:
    """Return those elements of ``folders`` that belong to a stored result (called by the sweep, which keeps these).

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return {row["folder"] for row in _results(db).find({"folder": {"$in": list(folders)}}, {"folder": 1})}


def _results(db: Db) -> Collection[Document]:
    return db.get_collection("inspection_results", write_concern=WriteConcern(w=1))
