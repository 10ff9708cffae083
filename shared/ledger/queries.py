"""Reads lists of batches (by page or by cursor), single batches, and single images.

Batches are returned without their images, which ``shared.ledger.batch_images`` reads, and without hidden fields. Each
function returns only what belongs to the ``stores`` of its reader; ``shared.ledger.batch_headers`` describes how it
shows a batch that also has images of other stores.
"""

import sys
import time
from dataclasses import dataclass
from typing import Any, Final

from pymongo import DESCENDING

from shared.allowed_stores import AllowedStores
from shared.errors import FieldError, Invalid, NotFound, TooSlow
from shared.ids import BATCH_ID_LENGTH, batch_of, is_batch_id
from shared.ledger import page_index
from shared.ledger.batch_headers import load_headers
from shared.ledger.batch_images import VISIBLE
from shared.ledger.filters import Filters
from shared.states import CLOSED, BatchState, ImageState
from shared.storage.mongo import Db, Document, translate_errors

NEWEST: Final = "newest"
"""The cursor for the first page."""
PAGED_WITHOUT_TOTAL: Final = 1000
"""The number of batches that page numbers reach in a list without a total."""
_ONE_BATCH_MS: Final = 10_000
_BY_STORES: Final = "stores_1_listed_1__id_-1"
_STORES_AT_ONCE: Final = 100
"""MongoDB merges the index entries of at most 200 stores in their order. For more, it reads them all and sorts them."""
_MAX_STEP: Final = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list of batches, the newest first.

    The documents of the batches contain no images; ``shared.ledger.batch_images`` reads those. ``total`` (the number of
    batches) and ``pages`` are None if the page was read with a cursor, or if the list is limited to several stores.
    ``next_cursor`` is None on the last page.
    """

    batches: list[Document]
    total: int | None
    pages: int | None
    next_cursor: str | None


def page_of_batches(
    db: Db, filters: Filters, stores: AllowedStores, page: int, per_page: int, *, deadline_s: float = 10.0
) -> Page:
    """Return the page with the number ``page``. Pages are numbered from 1. A page past the end is empty.

    A list that is limited to several stores has no totals: nothing counts the batches of a set of stores.

    :raises Invalid: when the list has no totals, and the page begins after its first ``PAGED_WITHOUT_TOTAL`` batches.
    :raises TooSlow: when finding or counting the batches takes longer than ``deadline_s``. This does not happen without
        filters, or with a filter for the store alone.
    """
    deadline_ms = int(deadline_s * 1000)
    index = (page - 1) * per_page
    searched = filters.limit_stores(stores)
    if searched is not None and not searched:
        return Page([], 0, 0, None)
    if searched is not None and len(searched) > 1:
        return _page_without_total(db, filters, stores, index, per_page, deadline_s)
    with translate_errors():
        if filters.can_use_page_index:
            store = None if searched is None else next(iter(searched))
            start = page_index.find_position(db, store, index, deadline_ms)
            total, ids = start.total, []
            if index < total:
                ids = _ids_from(db, store, start, per_page, deadline_ms)
        elif filters.status == BatchState.PARTIAL and stores is not None:
            ids = _ids_after(db, filters, stores, NEWEST, sys.maxsize, time.monotonic() + deadline_s)
            total, ids = len(ids), ids[index : index + per_page]
        else:
            total, ids = _count_and_ids(db, filters, stores, index, per_page, deadline_ms)
        batches = load_headers(db, ids, stores, deadline_ms)
    has_more = bool(ids) and index + len(ids) < total
    return Page(batches, total, -(-total // per_page), ids[-1] if has_more else None)


def batches_after(
    db: Db, filters: Filters, stores: AllowedStores, cursor: str, per_page: int, *, deadline_s: float = 10.0
) -> Page:
    """Return the page of batches that follows ``cursor``, without totals. The cursor ``NEWEST`` returns the first page.

    :raises Invalid: when the cursor is unknown.
    :raises TooSlow: when finding the batches takes longer than ``deadline_s``.
    """
    if cursor != NEWEST and not is_batch_id(cursor):
        detail = f"Unknown cursor; start with cursor={NEWEST}."
        raise Invalid(detail, code="bad_cursor", errors=[FieldError("/cursor", "bad_value", detail)])
    with translate_errors():
        ids = _ids_after(db, filters, stores, cursor, per_page + 1, time.monotonic() + deadline_s)
        return _page_of_ids(db, stores, ids, per_page, int(deadline_s * 1000))


def get_batch(db: Db, batch_id: str, stores: AllowedStores) -> Document:
    """Return one batch without its images.

    :raises NotFound: when the batch is unknown or deleted, or has no image of ``stores``.
    """
    with translate_errors():
        found = load_headers(db, [batch_id], stores, _ONE_BATCH_MS)
    if not found:
        raise NotFound("There is no such batch.")
    return found[0]


def is_closed(db: Db, batch_id: str, stores: AllowedStores) -> bool:
    """Return whether ``get_batch`` would raise ``NotFound``, or a batch that is finished.

    The cost is one indexed read, so callers can poll.
    """
    query: dict[str, Any] = {"_id": batch_id, "listed": True}
    if stores is not None:
        query["stores"] = {"$in": sorted(stores)}
    with translate_errors():
        header = db.batches.find_one(query, {"status": 1})
    return header is None or header["status"] in CLOSED


def get_image(db: Db, image_id: str, stores: AllowedStores) -> Document:
    """Return one image as stored, including the fields of its claim under ``work``.

    :raises NotFound: when the image is unknown or deleted, or belongs to another store than ``stores``.
    """
    with translate_errors():
        found = db.images.find_one({"_id": image_id, "status": VISIBLE})
    if found is None or (stores is not None and found["store_name"] not in stores):
        raise NotFound("There is no such image.")
    return found


def _page_without_total(
    db: Db, filters: Filters, stores: AllowedStores, index: int, per_page: int, deadline_s: float
) -> Page:
    if index >= PAGED_WITHOUT_TOTAL:
        detail = (
            f"In a list of several stores, page numbers reach only the first {PAGED_WITHOUT_TOTAL:,} batches. "
            "To read on, send the next_cursor of an earlier page as cursor."
        )
        raise Invalid(detail, errors=[FieldError("/page", "bad_value", detail)])
    with translate_errors():
        ids = _ids_after(db, filters, stores, NEWEST, index + per_page + 1, time.monotonic() + deadline_s)
        return _page_of_ids(db, stores, ids[index:], per_page, int(deadline_s * 1000))


def _page_of_ids(db: Db, stores: AllowedStores, ids: list[str], per_page: int, deadline_ms: int) -> Page:
    """Return the page with the first ``per_page`` of the batches ``ids``. Further ids mean that there is a next page."""
    batches = load_headers(db, ids[:per_page], stores, deadline_ms)
    return Page(batches, None, None, ids[per_page - 1] if len(ids) > per_page else None)


def _ids_from(db: Db, store: str | None, start: page_index.Position, per_page: int, deadline_ms: int) -> list[str]:
    query = page_index.listed_query(store)
    if start.newest is not None:
        query["_id"] = {"$lte": start.newest}
    rows = db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).skip(start.skip).limit(per_page)
    return [row["_id"] for row in rows.max_time_ms(deadline_ms)]


def _count_and_ids(
    db: Db, filters: Filters, stores: AllowedStores, index: int, per_page: int, deadline_ms: int
) -> tuple[int, list[str]]:
    # The index of the times ends with the id of the image, so that its batch is found without reading the document.
    has_times = filters.since is not None or filters.until is not None
    by_batch = {"$group": {"_id": {"$substrBytes": ["$_id", 0, BATCH_ID_LENGTH]} if has_times else "$batch_id"}}
    # Not one query with ``$or``: MongoDB 6.0.5 counts the groups of such a query wrongly, and takes twice as long.
    first, *others = filters.image_query(stores).separately()
    groups: list[dict[str, Any]] = [{"$match": first}, by_batch]
    if others:
        groups += [{"$unionWith": {"coll": "images", "pipeline": [{"$match": other}, by_batch]}} for other in others]
        groups.append({"$group": {"_id": "$_id"}})
    if filters.status == BatchState.PARTIAL:
        in_batch = filters.query(stores) | {"$expr": {"$eq": ["$batch_id", "$$batch"]}}
        groups = [
            {"$match": {"status": BatchState.PARTIAL.value, "listed": True}},
            {
                "$lookup": {
                    "from": "images",
                    "let": {"batch": "$_id"},
                    "pipeline": [{"$match": in_batch}, {"$limit": 1}],
                    "as": "met",
                }
            },
            {"$match": {"met": {"$ne": []}}},
        ]
    source = db.batches if filters.status == BatchState.PARTIAL else db.images
    options: dict[str, Any] = {"maxTimeMS": deadline_ms, "allowDiskUse": True}
    counted = list(source.aggregate([*groups, {"$count": "n"}], **options))
    total = int(counted[0]["n"]) if counted else 0
    if index >= total:
        return total, []
    window: list[dict[str, Any]] = [
        {"$sort": {"_id": -1}},
        {"$skip": index},
        {"$limit": per_page},
        {"$project": {"_id": 1}},
    ]
    return total, [row["_id"] for row in source.aggregate(groups + window, **options)]


def _after_cursor(cursor: str, field: str) -> dict[str, Any]:
    return {} if cursor == NEWEST else {field: {"$lt": cursor}}


def _remaining_ms(until: float) -> int:
    remaining_ms = int(1000 * (until - time.monotonic()))
    if remaining_ms <= 0:
        raise TooSlow("The listing takes too long; use a narrower filter.")
    return remaining_ms


def _ids_after(
    db: Db, filters: Filters, stores: AllowedStores, cursor: str, count: int, until: float
) -> list[str]:
    """Return the ids of the first ``count`` batches after ``cursor``, or of all if there are fewer."""
    searched = filters.limit_stores(stores)
    if searched is not None and not searched:
        return []
    if filters.can_use_page_index:
        return _listed_after(db, searched, cursor, count, until)
    find = _partial_after if filters.status == BatchState.PARTIAL else _matching_after
    return find(db, filters, stores, cursor, count, until)


def _listed_after(db: Db, stores: AllowedStores, cursor: str, count: int, until: float) -> list[str]:
    """Return the ids of the first ``count`` batches after ``cursor`` that have an image of one of ``stores``.

    For many stores, several queries read as many batches each. This reads more than one scan of all batches would if most
    batches belong to these stores, but the scan would read all batches if none does.
    """
    after = _after_cursor(cursor, "_id")
    if stores is None:
        return _read_ids(db, page_index.listed_query(None) | after, count, until)
    names = sorted(stores)
    ids: set[str] = set()
    for start in range(0, len(names), _STORES_AT_ONCE):
        among = {"stores": {"$in": names[start : start + _STORES_AT_ONCE]}, "listed": True}
        ids.update(_read_ids(db, among | after, count, until, hint=_BY_STORES))
    return sorted(ids, reverse=True)[:count]


def _read_ids(db: Db, query: dict[str, Any], count: int, until: float, hint: str | None = None) -> list[str]:
    rows = db.batches.find(query, {"_id": 1}, hint=hint).sort("_id", DESCENDING).limit(count)
    return [row["_id"] for row in rows.max_time_ms(_remaining_ms(until))]


def _matching_after(
    db: Db, filters: Filters, stores: AllowedStores, cursor: str, count: int, until: float
) -> list[str]:
    """Return the ids of the first ``count`` batches after ``cursor`` that have a matching image.

    Images are read in steps, the newest batch first. A step begins with the batch after the last batch of the previous
    step, so the remaining images of that last batch are not read.
    """
    ids: list[str] = []
    step = 4 * count
    while len(ids) < count:
        found_ids = _read_batch_ids(db, filters, stores, cursor, step, until)
        ids += dict.fromkeys(found_ids)
        if len(found_ids) < step:
            break
        cursor = found_ids[-1]
    return ids[:count]


def _read_batch_ids(
    db: Db, filters: Filters, stores: AllowedStores, cursor: str, limit: int, until: float
) -> list[str]:
    """Return the batch id of each of the first ``limit`` matching images after ``cursor``, in descending order."""
    images = filters.image_query(stores)
    order = images.sort_by_id()
    after = _after_cursor(cursor, order[0][0])  # a batch id precedes the ids of the images of the batch
    rows = db.images.find(images.along_ids(after), {"_id": 1}).sort(order).limit(limit).batch_size(limit)
    return [batch_of(row["_id"]) for row in rows.max_time_ms(_remaining_ms(until))]


def _partial_after(
    db: Db, filters: Filters, stores: AllowedStores, cursor: str, count: int, until: float
) -> list[str]:
    """Return the ids of the first ``count`` batches after ``cursor`` that meet filters with the status ``partial``.

    A batch meets such filters if its state is ``partial`` and one of its images meets all other filters. The state is
    that of the part that the reader sees, which can be ``partial`` only if one of its images has failed.
    """
    ids: list[str] = []
    step = min(4 * count, _MAX_STEP)
    failed = Filters(status=ImageState.FAILED)
    partial = {"status": BatchState.PARTIAL.value, "listed": True}
    while len(ids) < count:
        if stores is None:
            found_ids = partial_ids = _read_ids(db, partial | _after_cursor(cursor, "_id"), step, until)
        else:
            found_ids = _read_batch_ids(db, failed, stores, cursor, step, until)
            headers = load_headers(db, list(dict.fromkeys(found_ids)), stores, _remaining_ms(until))
            partial_ids = [header["_id"] for header in headers if header["status"] == BatchState.PARTIAL]
        matching = [
            {"$match": filters.query(stores) | {"batch_id": {"$in": partial_ids}}},
            {"$group": {"_id": "$batch_id"}},
        ]
        keep = (
            {row["_id"] for row in db.images.aggregate(matching, maxTimeMS=_remaining_ms(until))}
            if partial_ids
            else set()
        )
        ids += [batch_id for batch_id in partial_ids if batch_id in keep]
        if len(found_ids) < step:
            break
        cursor = found_ids[-1]
    return ids[:count]
