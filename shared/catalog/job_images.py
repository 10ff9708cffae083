"""Finds the images of the next part of a job that chooses them by filters, in ascending order of their ids.

If no index finds them in time, a part searches a window of the whole collection instead. So each part takes a bounded time.
"""

from collections.abc import Callable
from typing import Final

from shared.errors import TooSlow
from shared.ids import batch_of
from shared.storage.mongo import Db, Document, translate_errors

SEARCH_MS: Final = 2000
_WINDOW: Final = 5000
"""The number of images of the whole collection that a part searches if no index finds the images of the job in time."""


def find(
    db: Db, query_of: Callable[[Document], Document], after: str, until: str, size: int, *, is_rare: bool = False
) -> tuple[list[str], str | None]:
    """Return the ids of the images of the next part, and its cursor if that is not the last of these ids.

    Without ids and without a cursor, no image is left.

    :param query_of: returns the query for the images of the job that also meet a condition, which it must not change.
    :param after: the cursor of the job.
    :param until: the id of the last image that the job can be about.
    :param size: the maximum number of ids.
    :param is_rare: whether the query names a state for which ``rare_states`` is the index. It is read in order then.
    :raises StoreAway: when MongoDB does not respond.
    """
    left: Document = {"_id": {"$gt": after, "$lte": until}}
    order = [("_id", 1)]
    rare = {"batch_id": {"$gte": batch_of(after), "$lte": batch_of(until)}} if is_rare else {}
    if is_rare:
        order = [("batch_id", 1), *order]
    try:
        with translate_errors():
            found = db.images.find(query_of(left | rare), {"_id": 1}).sort(order).limit(size).max_time_ms(SEARCH_MS)
            return [row["_id"] for row in found], None
    except TooSlow:
        return _search_window(db, query_of, left, size)


def _search_window(db: Db, query_of: Callable[[Document], Document], left: Document, size: int) -> tuple[list[str], str | None]:
    """Search the next images of the whole collection, in the order of their ids. This takes a bounded time."""
    with translate_errors():
        window = [row["_id"] for row in db.images.find(left, {"_id": 1}).sort("_id", 1).limit(_WINDOW).hint("_id_")]
        if not window:
            return [], None
        within = query_of({"_id": {"$gte": window[0], "$lte": window[-1]}})
        found = [row["_id"] for row in db.images.find(within, {"_id": 1}).sort("_id", 1).limit(size).hint("_id_")]
    return found, None if len(found) == size else window[-1]
