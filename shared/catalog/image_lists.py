"""Lists images by page or by cursor, with filters and in several orders.

Which index is read, MongoDB decides by trial. If no index serves a combination of filters and an order, the entries of
another one are read until the page is full, at most until the deadline.

The first images of a list, or after a cursor, are read in one request: large documents are replaced by stubs there, and
``read_images`` reads these as they are needed. Two kinds of pages are read in two steps, first only the positions of the
images, and then the documents: pages with a high number, because positions are skipped faster than documents, and lists
of very many stores, which several queries find.
"""

import heapq
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final

from bson.raw_bson import RawBSONDocument
from pymongo.errors import ExecutionTimeout

from shared.allowed_stores import AllowedStores
from shared.catalog.image_orders import ORDERS, Order, Position, decode_cursor, encode_cursor
from shared.errors import FieldError, Invalid, TooSlow
from shared.ledger import batch_images
from shared.ledger.batch_images import PUBLIC, VISIBLE
from shared.ledger.filters import Filters, ImageQuery
from shared.storage.mongo import Db, Document, translate_errors

MAX_ROWS: Final = 10_000
"""The number of images that are counted, and that page numbers reach."""
_STORES_AT_ONCE: Final = 100
"""MongoDB merges the index entries of at most 200 stores in their order. For more, it reads them all and sorts them."""
_ROWS_AT_ONCE: Final = 1000
_SKIPPED_DOCUMENTS: Final = 200
"""So many documents are skipped in less time than another request takes."""
_COUNT_SHARE: Final = 0.25
"""The share of the time that is left after the images of a page have been found in which all images are counted."""


@dataclass(frozen=True, slots=True)
class ImagePage:
    """One page of a list of images.

    ``positions`` are those of the images, in the order of the list. ``total`` and ``pages`` are None if the page was read with
    a cursor, if more than ``MAX_ROWS`` images match, or if counting them takes too long. ``has_more`` says whether further
    images follow. ``rows`` are the images as ``batch_images.read_rows`` returned them, or None if only their positions were read.
    """

    order: Order
    positions: list[Position]
    total: int | None
    pages: int | None
    has_more: bool
    rows: list[bytes] | None = None

    @property
    def next_cursor(self) -> str | None:
        """The cursor for the next page; None on the last page."""
        return self.cursor_after(self.positions[-1]) if self.has_more else None

    def cursor_after(self, position: Position) -> str:
        """Return the cursor for what follows one of the images of the page."""
        return encode_cursor(self.order, position)


def page_of_images(
    db: Db, filters: Filters, stores: AllowedStores, sort: str, page: int, per_page: int, *, deadline_s: float = 10.0
) -> ImagePage:
    """Return the page with the number ``page`` of the images of ``stores``. Pages are numbered from 1; past the end they are empty.

    :param sort: the name of the order, a key of ``ORDERS``.
    :raises Invalid: when the page begins after the first ``MAX_ROWS`` images.
    :raises TooSlow: when finding the images takes longer than ``deadline_s``. If only counting them would, the total is None.
    :raises StoreAway: when MongoDB does not respond.
    """
    order, until = ORDERS[sort], time.monotonic() + deadline_s
    index = (page - 1) * per_page
    if index >= MAX_ROWS:
        detail = f"Page numbers reach only the first {MAX_ROWS:,} images. To read on, send the next_cursor of an earlier page as cursor."
        raise Invalid(detail, errors=[FieldError("/page", "bad_value", detail)])
    with translate_errors():
        found = _find(db, filters, stores, order, None, index, per_page + 1, until)
        if len(found.positions) <= per_page and (found.positions or not index):  # the last page
            count: int | None = index + len(found.positions)
        else:
            count = _count_in_time(db, filters, stores, order, until)
    return found.page(order, per_page, None if count is None or count > MAX_ROWS else count)


def images_after(
    db: Db, filters: Filters, stores: AllowedStores, sort: str, cursor: str, per_page: int, *, deadline_s: float = 10.0
) -> ImagePage:
    """Return the page of the images of ``stores`` that follows ``cursor``, without totals. ``image_orders.NEWEST`` returns the first page.

    :param sort: the name of the order, a key of ``ORDERS``.
    :raises Invalid: when the cursor is unknown, or belongs to another order (``bad_cursor``).
    :raises TooSlow: when finding the images takes longer than ``deadline_s``.
    :raises StoreAway: when MongoDB does not respond.
    """
    order, until = ORDERS[sort], time.monotonic() + deadline_s
    after = decode_cursor(order, cursor)
    with translate_errors():
        found = _find(db, filters, stores, order, after, 0, per_page + 1, until)
    return found.page(order, per_page, None)


def read_images(
    db: Db, page: ImagePage, stores: AllowedStores, *, deadline_s: float = 10.0
) -> Iterator[list[tuple[Position, Document]]]:
    """Yield the images of a page, without hidden fields, each with its position.

    Images that were deleted since the page was read, or moved to a store that is not among ``stores``, are left out if they
    have not been read with the page.

    :returns: runs of images that can be in memory together, one after the other (``batch_images.decode_rows``).
    :raises TooSlow: when reading some of the images takes longer than ``deadline_s``.
    :raises StoreAway: when MongoDB does not respond.
    """
    positions = {position.image_id: position for position in page.positions}
    deadline_ms = int(deadline_s * 1000)
    if page.rows is None:
        runs = batch_images.read_in_order(db, list(positions), stores, deadline_ms)
    else:
        runs = batch_images.decode_rows(db, page.rows, stores, deadline_ms)
    hidden = page.order.field if page.order.field in PUBLIC else None
    for run in runs:
        if hidden is not None:
            for image in run:
                image.pop(hidden, None)
        yield [(positions[image["_id"]], image) for image in run]


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found: the positions of images in their order, and perhaps their rows; both can be one more than a page has."""

    positions: list[Position]
    rows: list[bytes] | None = None

    def page(self, order: Order, per_page: int, total: int | None) -> ImagePage:
        pages = None if total is None else -(-total // per_page)
        rows = None if self.rows is None else self.rows[:per_page]
        return ImagePage(order, self.positions[:per_page], total, pages, len(self.positions) > per_page, rows)


_NOTHING: Final = _Found([], [])


def _count_in_time(db: Db, filters: Filters, stores: AllowedStores, order: Order, until: float) -> int | None:
    """Return how many images match, but at most ``MAX_ROWS + 1``. None: counting them takes too long."""
    now = time.monotonic()
    try:
        return _count(db, filters, stores, order, now + _COUNT_SHARE * (until - now))
    except (ExecutionTimeout, TooSlow):
        return None


def _count(db: Db, filters: Filters, stores: AllowedStores, order: Order, until: float) -> int:
    """Return how many images match, but at most ``MAX_ROWS + 1``."""
    count, searched = 0, filters.limit_stores(stores)
    conditions = dict(order.condition)
    if not (filters.has_index or conditions or searched is not None):
        conditions = {"timestamp": {"$gte": datetime(1, 1, 1)}}  # true for all images, and lets MongoDB read an index
    for images in _queries(filters, searched):
        counted = images
        if images.others["status"] == VISIBLE and not filters.annotated:  # the index of annotated images begins with the state
            # Without a condition for the state, many counts are read from an index alone. It is needed only if an image that
            # meets the others is being deleted.
            without = {name: condition for name, condition in images.others.items() if name != "status"}
            deleting = replace(images, others=without | {"status": "deleting"}).along_ids(conditions)
            if db.images.find_one(deleting, {"_id": 1}, max_time_ms=_remaining_ms(until)) is None:
                counted = replace(images, others=without)
        limit = MAX_ROWS + 1 - count
        count += db.images.count_documents(counted.along_ids(conditions), limit=limit, maxTimeMS=_remaining_ms(until))
        if count > MAX_ROWS:
            break
    return count


def _find(
    db: Db, filters: Filters, stores: AllowedStores, order: Order, after: Position | None, skip: int, limit: int, until: float
) -> _Found:
    """Find up to ``limit`` images, after the first ``skip`` of those that follow ``after``."""
    searched = filters.limit_stores(stores)
    chunks = _chunks(searched, at_once=len(searched or ()) if order.field or filters.has_ordered_index else _STORES_AT_ONCE)
    queries = [images for chunk in chunks for images in _queries(filters, chunk)]
    if not queries:
        return _NOTHING
    if len(chunks) == 1 and skip <= (_SKIPPED_DOCUMENTS if len(queries) == 1 else 0):
        return _find_with_rows(db, queries, order, after, skip, limit, until)
    if len(queries) == 1:
        positions: Iterable[Position] = _read(db, queries[0], order, after, skip, limit, until)
    else:
        streams = [_read(db, images, order, after, 0, skip + limit, until) for images in queries]
        positions = islice(_distinct(heapq.merge(*streams, reverse=order.direction < 0)), skip, None)
    return _Found(list(islice(positions, limit)))


def _find_with_rows(
    db: Db, queries: list[ImageQuery], order: Order, after: Position | None, skip: int, limit: int, until: float
) -> _Found:
    """Find images and read them. Only the images of one query can be skipped, and only without ``after``."""
    wanted = [_along(images, order, span) for images in queries for span in _ranges(images, order, after)]
    also = () if order.field is None else (order.field.partition(".")[0],)
    rows = batch_images.read_rows(db, wanted, skip, limit, _remaining_ms(until), also)
    # Two queries can have found an image, because it changed in the meantime; the later one has its newer state.
    found = {batch_images.id_of(row): row for row in rows}
    placed = ((_position_of(order, image_id, row), row) for image_id, row in found.items())
    ordered = sorted(placed, reverse=order.direction < 0)[:limit]
    return _Found([position for position, _ in ordered], [row for _, row in ordered])


def _position_of(order: Order, image_id: str, row: bytes) -> Position:
    return Position(None, image_id) if order.field is None else order.position_of(RawBSONDocument(row))


def _queries(filters: Filters, searched: AllowedStores) -> list[ImageQuery]:
    return [] if filters.exclude_all or (searched is not None and not searched) else filters.image_queries(searched)


def _chunks(stores: AllowedStores, at_once: int) -> list[AllowedStores]:
    if stores is None or not stores:
        return [stores]
    names = sorted(stores)
    return [frozenset(names[start : start + at_once]) for start in range(0, len(names), at_once)]


def _distinct(positions: Iterable[Position]) -> Iterator[Position]:
    """Yield positions in their order without those of an image that two queries found, because it changed in the meantime."""
    last = None
    for position in positions:
        if position.image_id != last:
            yield position
        last = position.image_id


def _read(
    db: Db, images: ImageQuery, order: Order, after: Position | None, skip: int, limit: int, until: float
) -> Iterator[Position]:
    ranges = _ranges(images, order, after)
    rows = chain.from_iterable(_read_range(db, images, order, span, skip, limit, until) for span in ranges)
    return islice(rows, limit)


def _read_range(
    db: Db, images: ImageQuery, order: Order, span: dict[str, Any], skip: int, limit: int, until: float
) -> Iterator[Position]:
    query, keys = _along(images, order, span)
    fields = {"_id": 1} | ({order.field: 1} if order.field else {})
    rows = db.images.find(query, fields).sort(keys).skip(skip).limit(limit).batch_size(min(limit + 1, _ROWS_AT_ONCE))
    yield from map(order.position_of, rows.max_time_ms(_remaining_ms(until)))


def _ranges(images: ImageQuery, order: Order, after: Position | None) -> list[dict[str, Any]]:
    return order.ranges_after(after, is_rare=images.is_rare and order.field is None)


def _along(images: ImageQuery, order: Order, span: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """Return the MongoDB query for the images of one range, and its sort specification."""
    if order.field is None:
        return images.along_ids(span), images.sort_by_id(order.direction)
    return images.along_field(order.condition, span), [(order.field, order.direction), ("_id", order.direction)]


def _remaining_ms(until: float) -> int:
    remaining_ms = int(1000 * (until - time.monotonic()))
    if remaining_ms <= 0:
        raise TooSlow("The listing takes too long; use a narrower filter.")
    return remaining_ms

