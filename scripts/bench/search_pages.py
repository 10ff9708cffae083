"""Pages of lists of images: of the service, and by plain queries of the same database.

The plain queries are those that somebody would write with pymongo: the condition, the order and the limit, without a hint,
the tag of the filter by its name, the names of the tags of the images that were found, and ``orjson.dumps`` of all fields that
responses contain. The baseline of a page with a total also counts, up to one more than 10,000.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from scripts.bench.search_filters import Filter
from scripts.bench.search_lists import Lists
from shared.catalog.image_orders import NEWEST, ORDERS, Order, Position, encode_cursor
from shared.ledger.batch_images import PUBLIC
from shared.storage.mongo import Document

PER_PAGE: Final = 20
_COUNTED: Final = 10_001
_LIMIT_MS: Final = 60_000
_ORJSON: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of the service's list of images, and those of plain queries."""

    lists: Lists

    def after(self, parameters: Mapping[str, str], cursor: str = NEWEST) -> float:
        """Return the seconds for the page after a cursor.

        :raises RuntimeError: when the page is not full, although it is not the first one.
        """
        elapsed, found = self.lists.get_images({"cursor": cursor, **parameters})
        if cursor != NEWEST and len(found["images"]) != PER_PAGE:
            raise RuntimeError(f"{parameters}: the page has {len(found['images'])} images, expected {PER_PAGE}.")
        return elapsed

    def with_total(self, parameters: Mapping[str, str]) -> float:
        """Return the seconds for page 1 with its total."""
        return self.lists.get_images({"page": "1", **parameters})[0]

    def plain(self, chosen: Filter, sort: str = "-created_at", *, counts: bool = False) -> float:
        """Return the seconds for the first page, with its total if ``counts``, by a plain query."""
        started = time.perf_counter()
        if "tag" in chosen.parameters:
            self.lists.db.tags.find_one({"key": chosen.parameters["tag"]}, {"_id": 1})
        page: dict[str, Any] = {"images": self._name_tags(self._find(chosen, ORDERS[sort]))}
        if counts:
            page["total"] = self.lists.db.images.count_documents(chosen.query, limit=_COUNTED, maxTimeMS=_LIMIT_MS)
        orjson.dumps(page, option=_ORJSON)
        return time.perf_counter() - started

    def check(self, chosen: Filter, sort: str = "-created_at") -> None:
        """Compare the first page of the service with the plain query.

        :raises RuntimeError: when they differ.
        """
        found = self.lists.get_images({"cursor": NEWEST, "sort": sort, **chosen.parameters})[1]["images"]
        expected = self._find(chosen, ORDERS[sort])[:PER_PAGE]
        if [image["id"] for image in found] != [image["_id"] for image in expected]:
            raise RuntimeError(f"{chosen.name}, {sort}: the list and a plain query return different images.")

    def deep_cursor(self, chosen: Filter, sort: str, sample: list[Document], depth: float) -> str | None:
        """Return the cursor behind the share ``depth`` of all images, or None if fewer than a page of those chosen follow.

        :param sample: random images.
        """
        order = ORDERS[sort]
        positions = sorted((order.position_of(image) for image in sample if _is_in(order, image)), reverse=order.direction < 0)
        deep: Position = positions[int(len(positions) * depth)]
        cursor = encode_cursor(order, deep)
        _, found = self.lists.get_images({"cursor": cursor, "sort": sort, **chosen.parameters})
        return cursor if len(found["images"]) == PER_PAGE else None

    def _find(self, chosen: Filter, order: Order) -> list[Document]:
        keys = [("_id", order.direction)] if order.field is None else [(order.field, order.direction), ("_id", order.direction)]
        query = {"$and": [chosen.query, order.condition]} if order.condition else chosen.query
        rows = self.lists.db.images.find(query, PUBLIC).sort(keys).limit(PER_PAGE + 1)
        return list(rows.max_time_ms(_LIMIT_MS))

    def _name_tags(self, images: list[Document]) -> list[Document]:
        """Replace the tags of images with their names, with one query."""
        ids = {tag["id"] for image in images for tag in image["tags"]}
        if ids:
            names = {row["_id"]: row["name"] for row in self.lists.db.tags.find({"_id": {"$in": list(ids)}}, {"name": 1})}
            for image in images:
                image["tags"] = [names[tag["id"]] for tag in image["tags"]]
        return images


def _is_in(order: Order, image: Document) -> bool:
    """Return whether an image has the field of an order."""
    try:
        order.position_of(image)
    except (KeyError, TypeError):
        return False
    return True
