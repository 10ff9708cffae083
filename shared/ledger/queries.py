"""Reads lists of batches (by page or by cursor), single batches, and single images.

Batches are returned without their images, which ``shared.ledger.batch_images`` reads, and without hidden fields.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import DESCENDING

from shared.errors import FieldError, Invalid, NotFound, TooSlow
from shared.ids import is_batch_id
from shared.ledger import page_index
from shared.ledger.batch_images import VISIBLE
from shared.ledger.open_counts import count_open
from shared.states import CLOSED, BatchState, ImageState, batch_state
from shared.storage import schema
from shared.storage.mongo import Db, Document, translate_errors

_HEADER: Final = dict.fromkeys(schema.hidden_fields(schema.Batch), 0)
NEWEST: Final = "newest"
"""The cursor for the first page."""
_ONE_BATCH_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions for a listing. A batch is listed if one of its images meets all conditions that are set.

    If both ``label`` and ``min_score`` are set, the same detection must meet both. ``since`` and ``until`` (naive UTC,
    inclusive) apply to the ``timestamp`` of the image. ``status`` is the state of the image, except for ``partial``,
    which is the state of its batch.
    """

    store_name: str | None = None
    camera_id: str | None = None
    barcode: str | None = None
    status: str | None = None
    label: str | None = None
    min_score: float | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def can_use_page_index(self) -> bool:
        """Whether the page index can be used, that is, no condition other than ``store_name`` is set."""
        return self == Filters(store_name=self.store_name)

    def query(self) -> dict[str, Any]:
        """Return the MongoDB query for the images that meet the conditions."""
        query: dict[str, Any] = {"status": VISIBLE}
        for name in ("store_name", "camera_id", "barcode"):
            if getattr(self, name) is not None:
                query[name] = getattr(self, name)
        if self.status is not None and self.status != BatchState.PARTIAL:
            query["status"] = self.status
        if self.tag is not None:
            query["tags"] = self.tag
        if self.label is not None:
            query["detections.label"] = self.label
        if self.min_score is not None:
            detection: dict[str, Any] = {"score": {"$gte": self.min_score}}
            if self.label is not None:
                detection["label"] = self.label
            query["detections"] = {"$elemMatch": detection}
        if self.since is not None or self.until is not None:
            bounds = {"$gte": self.since, "$lte": self.until}
            query["timestamp"] = {op: value for op, value in bounds.items() if value is not None}
        return query


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list of batches, the newest first.

    The documents of the batches contain no images; ``shared.ledger.batch_images`` reads those. ``total`` (the number of
    batches) and ``pages`` are None if the page was read with a cursor. ``next_cursor`` is None on the last page.
    """

    batches: list[Document]
    total: int | None
    pages: int | None
    next_cursor: str | None


def page_of_batches(db: Db, filters: Filters, page: int, per_page: int, *, deadline_s: float = 10.0) -> Page:
    """Return the page with the number ``page``, with totals. Pages are numbered from 1. A page past the end is empty.

    :raises TooSlow: when counting takes longer than ``deadline_s``. This does not happen without filters, or with a
        filter for the store alone.
    """
    deadline_ms = int(deadline_s * 1000)
    index = (page - 1) * per_page
    with translate_errors():
        if filters.can_use_page_index:
            start = page_index.find_position(db, filters.store_name, index, deadline_ms)
            total, ids = start.total, []
            if index < total:
                ids = _ids_from(db, filters.store_name, start, per_page, deadline_ms)
        else:
            total, ids = _count_and_ids(db, filters, index, per_page, deadline_ms)
        batches = _load_headers(db, ids, deadline_ms)
    has_more = bool(ids) and index + len(ids) < total
    return Page(batches, total, -(-total // per_page), ids[-1] if has_more else None)


def batches_after(db: Db, filters: Filters, cursor: str, per_page: int, *, deadline_s: float = 10.0) -> Page:
    """Return the page of batches that follows ``cursor``, without totals. The cursor ``NEWEST`` returns the first page.

    :raises Invalid: when the cursor is unknown.
    :raises TooSlow: when finding the batches takes longer than ``deadline_s``.
    """
    if cursor != NEWEST and not is_batch_id(cursor):
        detail = f"Unknown cursor; start with cursor={NEWEST}."
        raise Invalid(detail, code="bad_cursor", errors=[FieldError("/cursor", "bad_value", detail)])
    deadline_ms = int(deadline_s * 1000)
    with translate_errors():
        if filters.can_use_page_index:
            query = page_index.listed_query(filters.store_name) | _after_cursor(cursor, "_id")
            rows = (
                db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).limit(per_page + 1).max_time_ms(deadline_ms)
            )
            ids = [row["_id"] for row in rows]
        else:
            find = _partial_after if filters.status == BatchState.PARTIAL else _matching_after
            ids = find(db, filters, cursor, per_page + 1, time.monotonic() + deadline_s)
        batches = _load_headers(db, ids[:per_page], deadline_ms)
    return Page(batches, None, None, ids[per_page - 1] if len(ids) > per_page else None)


def get_batch(db: Db, batch_id: str) -> Document:
    """Return one batch without its images.

    :raises NotFound: when the batch is unknown or deleted.
    """
    with translate_errors():
        found = _load_headers(db, [batch_id], _ONE_BATCH_MS)
    if not found:
        raise NotFound("There is no such batch.")
    return found[0]


def is_closed(db: Db, batch_id: str) -> bool:
    """Return whether a batch is finished or deleted. The cost is one indexed read, so callers can poll."""
    with translate_errors():
        header = db.batches.find_one({"_id": batch_id, "listed": True}, {"status": 1})
    return header is None or header["status"] in CLOSED


def get_image(db: Db, image_id: str) -> Document:
    """Return one image as stored, including the fields of its claim under ``work``.

    :raises NotFound: when the image is unknown or deleted.
    """
    with translate_errors():
        found = db.images.find_one({"_id": image_id, "status": VISIBLE})
    if found is None:
        raise NotFound("There is no such image.")
    return found


def _ids_from(db: Db, store: str | None, start: page_index.Position, per_page: int, deadline_ms: int) -> list[str]:
    query = page_index.listed_query(store)
    if start.newest is not None:
        query["_id"] = {"$lte": start.newest}
    rows = db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).skip(start.skip).limit(per_page)
    return [row["_id"] for row in rows.max_time_ms(deadline_ms)]


def _count_and_ids(db: Db, filters: Filters, index: int, per_page: int, deadline_ms: int) -> tuple[int, list[str]]:
    groups: list[dict[str, Any]] = [{"$match": filters.query()}, {"$group": {"_id": "$batch_id"}}]
    if filters.status == BatchState.PARTIAL:
        in_batch = filters.query() | {"$expr": {"$eq": ["$batch_id", "$$batch"]}}
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


def _matching_after(db: Db, filters: Filters, cursor: str, count: int, until: float) -> list[str]:
    """Return the ids of the first ``count`` batches after ``cursor`` that have a matching image.

    Images are read in steps, the newest batch first. A step begins with the batch after the last batch of the previous
    step, so the remaining images of that last batch are not read.
    """
    ids: list[str] = []
    step = 4 * count
    while len(ids) < count:
        query = filters.query() | _after_cursor(cursor, "batch_id")
        rows = db.images.find(query, {"_id": 0, "batch_id": 1}).sort("batch_id", DESCENDING)
        found_ids = [row["batch_id"] for row in rows.limit(step).batch_size(step).max_time_ms(_remaining_ms(until))]
        ids += dict.fromkeys(found_ids)
        if len(found_ids) < step:
            break
        cursor = found_ids[-1]
    return ids[:count]


def _partial_after(db: Db, filters: Filters, cursor: str, count: int, until: float) -> list[str]:
    """Return the ids of the first ``count`` batches after ``cursor`` that meet filters with the status ``partial``.

    A batch meets such filters if its state is ``partial`` and one of its images meets all other filters.
    """
    ids: list[str] = []
    step = 4 * count
    while len(ids) < count:
        query = {"status": BatchState.PARTIAL.value, "listed": True} | _after_cursor(cursor, "_id")
        rows = db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).limit(step).max_time_ms(_remaining_ms(until))
        found_ids = [row["_id"] for row in rows]
        matching = [{"$match": filters.query() | {"batch_id": {"$in": found_ids}}}, {"$group": {"_id": "$batch_id"}}]
        keep = (
            {row["_id"] for row in db.images.aggregate(matching, maxTimeMS=_remaining_ms(until))}
            if found_ids
            else set()
        )
        ids += [batch_id for batch_id in found_ids if batch_id in keep]
        if len(found_ids) < step:
            break
        cursor = found_ids[-1]
    return ids[:count]


def _load_headers(db: Db, ids: Sequence[str], deadline_ms: int) -> list[Document]:
    """Return the batches that are still listed, in the order of ``ids``, with their counts and without hidden fields."""
    if not ids:
        return []
    query = {"_id": {"$in": list(ids)}, "listed": True}
    found = db.batches.find(query, _HEADER).batch_size(len(ids) + 1).max_time_ms(deadline_ms)
    headers = {row["_id"]: row for row in found}
    batches = [headers[batch_id] for batch_id in ids if batch_id in headers]
    _complete_counts(db, batches, deadline_ms)
    return batches


def _complete_counts(db: Db, batches: list[Document], deadline_ms: int) -> None:
    counts = count_open(db, [batch["_id"] for batch in batches if batch["counts"] is None], deadline_ms)
    for batch in batches:
        if batch["counts"] is None:
            _set_counts(batch, counts[batch["_id"]])


def _set_counts(batch: Document, counts: dict[str, int]) -> None:
    """Set the counts and the state of an open batch from the states of its images.

    The batch is shown as ``processing`` until it has been closed, even if all its images are already finished.
    """
    batch["counts"] = {state.value: counts.get(state.value, 0) for state in ImageState}
    state = batch_state(counts, batch["total"])
    batch["status"] = BatchState.PROCESSING.value if state in CLOSED else state.value
