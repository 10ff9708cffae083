"""Reading: lists by page or by cursor, one batch, one image. Documents come as stored, less the internals."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import DESCENDING

from shared.errors import FieldError, Invalid, NotFound, TooSlow
from shared.ids import is_batch_id
from shared.ledger import page_index
from shared.ledger.results import count_images
from shared.states import CLOSED, BatchState, ImageState, batch_state
from shared.storage.mongo import Db, Document, translate_errors

_PUBLIC: Final = {"work": 0}
NEWEST: Final = "newest"
"""The cursor to begin with."""
_GROUP: Final = 4000
"""Images that are read at once; as objects of Python each takes some 25 KB."""
_ONE_BATCH_MS: Final = 10_000
_VISIBLE: Final = {"$in": [state.value for state in ImageState]}


@dataclass(frozen=True, slots=True)
class Filters:
    """What to list. All that are set must hold for one and the same image; ``label`` and ``min_score`` for one detection.

    ``since`` and ``until`` (naive UTC, inclusive) are about the image's ``timestamp``. ``status`` is an image's; ``partial`` is
    its batch's.
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
    def by_store_at_most(self) -> bool:
        """Say whether nothing, or the store alone, is asked for: then page N is found without a walk."""
        return self == Filters(store_name=self.store_name)

    def query(self) -> dict[str, Any]:
        """Give the query over images."""
        query: dict[str, Any] = {"status": _VISIBLE}
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
            wanted: dict[str, Any] = {"score": {"$gte": self.min_score}}
            if self.label is not None:
                wanted["label"] = self.label
            query["detections"] = {"$elemMatch": wanted}
        if self.since is not None or self.until is not None:
            span = {"$gte": self.since, "$lte": self.until}
            query["timestamp"] = {op: value for op, value in span.items() if value is not None}
        return query


@dataclass(frozen=True, slots=True)
class Page:
    """Batches, newest first. ``total`` and ``pages`` are None for a cursor; ``next_cursor`` is None at the end.

    ``batches`` are read while they are taken, a few thousand images at a time, so that a large page need not be in memory at
    once; that may raise ``StoreAway`` and ``TooSlow``.
    """

    batches: Iterator[Document]
    total: int | None
    pages: int | None
    next_cursor: str | None


def page_of_batches(db: Db, filters: Filters, page: int, per_page: int, images_per_batch: int, deadline_s: float = 10.0) -> Page:
    """Give page ``page`` (from 1) and the totals; a page past the end is empty.

    :raises TooSlow: counting took longer than the deadline (never without a filter or by store).
    """
    deadline_ms = int(deadline_s * 1000)
    position = (page - 1) * per_page
    with translate_errors():
        if filters.by_store_at_most:
            place = page_index.locate(db, filters.store_name, position, deadline_ms)
            total, ids = place.total, []
            if position < total:
                ids = _ids_from(db, filters.store_name, place, per_page, deadline_ms)
        else:
            total, ids = _count_and_ids(db, filters, position, per_page, deadline_ms)
    batches = _load(db, ids, images_per_batch, deadline_ms)
    more = bool(ids) and position + len(ids) < total
    return Page(batches, total, -(-total // per_page), ids[-1] if more else None)


def batches_after(
    db: Db, filters: Filters, cursor: str, per_page: int, images_per_batch: int, deadline_s: float = 10.0
) -> Page:
    """Give the batches that follow ``cursor``, without counting; ``NEWEST`` begins.

    :raises Invalid: the cursor is none of ours. :raises TooSlow: no page was found within the deadline.
    """
    if cursor != NEWEST and not is_batch_id(cursor):
        detail = f"This cursor is none of ours; begin with cursor={NEWEST}."
        raise Invalid(detail, code="bad_cursor", errors=[FieldError("/cursor", "bad_value", detail)])
    deadline_ms = int(deadline_s * 1000)
    with translate_errors():
        if filters.by_store_at_most:
            query = page_index.listed(filters.store_name) | _after(cursor, "_id")
            rows = db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).limit(per_page + 1).max_time_ms(deadline_ms)
            ids = [row["_id"] for row in rows]
        else:
            find = _partial_after if filters.status == BatchState.PARTIAL else _matching_after
            ids = find(db, filters, cursor, per_page + 1, time.monotonic() + deadline_s)
    batches = _load(db, ids[:per_page], images_per_batch, deadline_ms)
    return Page(batches, None, None, ids[per_page - 1] if len(ids) > per_page else None)


def get_batch(db: Db, batch_id: str) -> Document:
    """Give one batch with all its images.

    :raises NotFound: unknown, or deleted.
    """
    found = next(_load(db, [batch_id], None, _ONE_BATCH_MS), None)
    if found is None:
        raise NotFound("There is no such batch.")
    return found


def is_closed(db: Db, batch_id: str) -> bool:
    """Say whether a batch is finished or gone: one look-up, for those who wait."""
    with translate_errors():
        header = db.batches.find_one({"_id": batch_id, "listed": True}, {"status": 1})
    return header is None or header["status"] in CLOSED


def get_image(db: Db, image_id: str) -> Document:
    """Give one image as stored, with the claim's fields under ``work``.

    :raises NotFound: unknown, or deleted.
    """
    with translate_errors():
        found = db.images.find_one({"_id": image_id, "status": _VISIBLE})
    if found is None:
        raise NotFound("There is no such image.")
    return found


def _ids_from(db: Db, store: str | None, place: page_index.Place, per_page: int, deadline_ms: int) -> list[str]:
    query = page_index.listed(store)
    if place.newest is not None:
        query["_id"] = {"$lte": place.newest}
    rows = db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).skip(place.skip).limit(per_page)
    return [row["_id"] for row in rows.max_time_ms(deadline_ms)]


def _count_and_ids(db: Db, filters: Filters, position: int, per_page: int, deadline_ms: int) -> tuple[int, list[str]]:
    groups: list[dict[str, Any]] = [{"$match": filters.query()}, {"$group": {"_id": "$batch_id"}}]
    if filters.status == BatchState.PARTIAL:
        mine = filters.query() | {"$expr": {"$eq": ["$batch_id", "$$batch"]}}
        groups = [
            {"$match": {"status": BatchState.PARTIAL.value, "listed": True}},
            {"$lookup": {"from": "images", "let": {"batch": "$_id"}, "pipeline": [{"$match": mine}, {"$limit": 1}], "as": "met"}},
            {"$match": {"met": {"$ne": []}}},
        ]
    source = db.batches if filters.status == BatchState.PARTIAL else db.images
    options: dict[str, Any] = {"maxTimeMS": deadline_ms, "allowDiskUse": True}
    counted = list(source.aggregate([*groups, {"$count": "n"}], **options))
    total = int(counted[0]["n"]) if counted else 0
    if position >= total:
        return total, []
    window: list[dict[str, Any]] = [{"$sort": {"_id": -1}}, {"$skip": position}, {"$limit": per_page}, {"$project": {"_id": 1}}]
    return total, [row["_id"] for row in source.aggregate(groups + window, **options)]


def _after(cursor: str, field: str) -> dict[str, Any]:
    return {} if cursor == NEWEST else {field: {"$lt": cursor}}


def _left_ms(until: float) -> int:
    left = int(1000 * (until - time.monotonic()))
    if left <= 0:
        raise TooSlow("This listing takes too long; use a narrower filter.")
    return left


def _matching_after(db: Db, filters: Filters, cursor: str, wanted: int, until: float) -> list[str]:
    """Walk down the images that match, jumping over the rest of a batch once it was met."""
    ids: list[str] = []
    step = 4 * wanted
    while len(ids) < wanted:
        query = filters.query() | _after(cursor, "batch_id")
        rows = db.images.find(query, {"_id": 0, "batch_id": 1}).sort("batch_id", DESCENDING)
        met = [row["batch_id"] for row in rows.limit(step).batch_size(step).max_time_ms(_left_ms(until))]
        ids += dict.fromkeys(met)
        if len(met) < step:
            break
        cursor = met[-1]
    return ids[:wanted]


def _partial_after(db: Db, filters: Filters, cursor: str, wanted: int, until: float) -> list[str]:
    """Walk down the partial batches, and keep those with an image that matches what else is asked for."""
    ids: list[str] = []
    step = 4 * wanted
    while len(ids) < wanted:
        query = {"status": BatchState.PARTIAL.value, "listed": True} | _after(cursor, "_id")
        rows = db.batches.find(query, {"_id": 1}).sort("_id", DESCENDING).limit(step).max_time_ms(_left_ms(until))
        met = [row["_id"] for row in rows]
        matching = [{"$match": filters.query() | {"batch_id": {"$in": met}}}, {"$group": {"_id": "$batch_id"}}]
        keep = {row["_id"] for row in db.images.aggregate(matching, maxTimeMS=_left_ms(until))} if met else set()
        ids += [batch_id for batch_id in met if batch_id in keep]
        if len(met) < step:
            break
        cursor = met[-1]
    return ids[:wanted]


def _load(db: Db, ids: Sequence[str], images_per_batch: int | None, deadline_ms: int) -> Iterator[Document]:
    """Load batches in the order of ``ids``, with their first images (None: all), as many at a time as have few enough images."""
    at_once = 1 if images_per_batch is None else max(1, _GROUP // max(1, images_per_batch))
    for begin in range(0, len(ids), at_once):
        with translate_errors():
            yield from _load_group(db, ids[begin : begin + at_once], images_per_batch, deadline_ms)


def _load_group(db: Db, ids: Sequence[str], images_per_batch: int | None, deadline_ms: int) -> list[Document]:
    found = db.batches.find({"_id": {"$in": list(ids)}, "listed": True}).batch_size(len(ids) + 1).max_time_ms(deadline_ms)
    headers = {row["_id"]: row for row in found}
    batches = [headers[batch_id] for batch_id in ids if batch_id in headers]
    for batch in batches:
        batch["images"] = []
    if images_per_batch != 0:
        query: dict[str, Any] = {"batch_id": {"$in": list(headers)}, "status": _VISIBLE}
        if images_per_batch is not None:
            query["index"] = {"$lt": images_per_batch}
        rows = db.images.find(query, _PUBLIC).sort([("batch_id", 1), ("index", 1)]).batch_size(20_000)
        for image in rows.max_time_ms(deadline_ms):
            headers[image["batch_id"]]["images"].append(image)
    for batch in batches:
        _cut(db, batch, images_per_batch)
    _complete_counts(db, batches)
    return batches


def _cut(db: Db, batch: Document, images_per_batch: int | None) -> None:
    """Mark a batch that has more images than are shown; where rejected images left gaps in the indexes, fill up."""
    if images_per_batch is None:
        return
    there = batch["total"]
    if len(batch["images"]) < min(there, images_per_batch):
        query = {"batch_id": batch["_id"], "status": _VISIBLE}
        rows = db.images.find(query, _PUBLIC).sort("index", 1).limit(images_per_batch).batch_size(images_per_batch)
        batch["images"] = list(rows)
    if len(batch["images"]) < there:
        batch["images_more"] = True


def _complete_counts(db: Db, batches: list[Document]) -> None:
    open_ids = [batch["_id"] for batch in batches if batch["counts"] is None]
    counts = count_images(db, open_ids) if open_ids else {}
    for batch in batches:
        if batch["counts"] is None:
            _set_counts(batch, counts.get(batch["_id"], {}))


def _set_counts(batch: Document, counts: dict[str, int]) -> None:
    """Show an open batch as its images stand; it is shown finished only once it has been closed."""
    batch["counts"] = {state.value: counts.get(state.value, 0) for state in ImageState}
    state = batch_state(counts, batch["total"])
    batch["status"] = BatchState.PROCESSING.value if state in CLOSED else state.value

