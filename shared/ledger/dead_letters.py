"""Lists the images that have failed and have no result, the newest first, and counts them by their error."""

from dataclasses import dataclass
from typing import Any, Final

from shared.allowed_stores import AllowedStores
from shared.ids import batch_of
from shared.states import ImageState
from shared.storage.mongo import Db, Document, translate_errors

MAX_SEARCHED: Final = 5000
"""The number of failed images among which one call searches for those that meet conditions."""
FAILURES_READ: Final = 10_000
"""The number of images that ``failures_by_code`` reads."""
_ORDER: Final = [("batch_id", -1), ("_id", -1)]
_INDEX: Final = "rare_states"
_FIELDS: Final = dict.fromkeys(("batch_id", "index", "store_name", "camera_id", "error", "finished_at", "work.fence"), 1)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Some failed images as stored, and the id after which the list goes on; None at its end.

    There may be fewer images than wanted, or none, although the list goes on.
    """

    images: list[Document]
    after: str | None


def list_page(
    db: Db, stores: AllowedStores, after: str | None, limit: int, *, code: str | None = None, deadline_s: float = 10.0
) -> DeadLetters:
    """Return the next failed images, the newest first, that is, in descending order of their ids.

    Without conditions, as many documents are read as are returned. With them, at most ``MAX_SEARCHED``.

    :param stores: the stores of the images.
    :param after: what the previous call returned; None for the first one.
    :param limit: the maximum number of images.
    :param code: the code of their error; None: any.
    :raises TooSlow: when this takes longer than ``deadline_s``.
    :raises StoreAway: when MongoDB does not respond.
    """
    query: Document = {"status": ImageState.FAILED.value}
    if after is not None:
        query |= {"batch_id": {"$lte": batch_of(after)}, "_id": {"$lt": after}}
    conditions = ({} if code is None else {"error.code": code}) | ({} if stores is None else {"store_name": {"$in": sorted(stores)}})
    last = _find_last(db, query, deadline_s) if conditions else None
    if last is not None:
        query["_id"] = query.get("_id", {}) | {"$gte": last}
        query["batch_id"] = query.get("batch_id", {}) | {"$gte": batch_of(last)}
    found = _read(db, query | conditions, _FIELDS, deadline_s, limit + 1)
    if len(found) > limit:
        return DeadLetters(found[:limit], found[limit - 1]["_id"])
    return DeadLetters(found, last)


def failures_by_code(db: Db, stores: AllowedStores = None, *, deadline_s: float = 30.0) -> dict[str, int]:
    """Count the newest failed images, at most ``FAILURES_READ``, by error code, in descending order of the count.

    :param stores: the stores whose images are counted. Those of all stores are read.
    :raises TooSlow: when this takes longer than ``deadline_s``.
    :raises StoreAway: when MongoDB does not respond.
    """
    within = [] if stores is None else [{"$match": {"store_name": {"$in": sorted(stores)}}}]
    with translate_errors():
        groups = db.images.aggregate(
            [
                {"$match": {"status": ImageState.FAILED.value}},
                {"$sort": dict(_ORDER)},
                {"$limit": FAILURES_READ},
                *within,
                {"$group": {"_id": "$error.code", "n": {"$sum": 1}}},
                {"$sort": {"n": -1}},
            ],
            hint=_INDEX,
            maxTimeMS=int(deadline_s * 1000),
        )
        return {str(group["_id"]): group["n"] for group in groups}


def _find_last(db: Db, query: Document, deadline_s: float) -> str | None:
    """Return the id of the last image among which to search; None if the search reaches the end. Only the index is read."""
    found = _read(db, query, {"_id": 1}, deadline_s, 1, skip=MAX_SEARCHED - 1)
    return str(found[0]["_id"]) if found else None


def _read(db: Db, query: Document, fields: Any, deadline_s: float, limit: int, skip: int = 0) -> list[Document]:
    with translate_errors():
        rows = db.images.find(query, fields, sort=_ORDER, hint=_INDEX, skip=skip, limit=limit)
        return list(rows.max_time_ms(int(deadline_s * 1000)))
