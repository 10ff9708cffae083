"""Finds the images that look like one image: exact copies, and images whose perceptual hashes differ in few bits.

The images are sorted by distance and then by id, so they are searched in this order and only until a page is full:
``close_hashes`` finds the hashes at one distance, and the index of the hashes contains their images in the order of the ids.

Exact copies have the same sha256. Those that have no hash, because they were processed by a version that computed none or could
not be decoded, are found as well, once their processing has ended.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

import pymongo
from pymongo import DESCENDING

from shared.allowed_stores import AllowedStores
from shared.catalog.close_hashes import CloseHashes
from shared.errors import FieldError, Invalid, NotFound
from shared.ledger import queries
from shared.ledger.batch_images import PUBLIC, visible_images
from shared.storage.mongo import Db, Document, translate_errors
from shared.storage.schema import ENDED_STATES

MAX_DISTANCE: Final = 10
DEFAULT_DISTANCE: Final = 6
"""The greatest distance that counts as similar by default.

In the photos of a grocery, all copies that were reduced to a quarter of their sides, encoded again (JPEG 40), or made brighter
or darker by a fifth were within 6 bits, and so were 99.8% of those whose edges were cropped by 2% (600 photos). Of the 4.3
million pairs of different photos, 28 were, and each of these showed the same products.
"""
MAX_FOUND: Final = 10_000
MAX_CHECKED: Final = 4000
"""The number of images with a close hash of which the search for a page reads the store and the state. If the reader may see few
of them, the page ends there, and the next one continues."""
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
_HAS_HASH: Final = {"$gt": ""}


class Position(NamedTuple):
    """A place in the list of similar images: that of the image ``image_id``, which has this distance."""

    distance: int
    image_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of similar images, as pairs of the distance and the image without hidden fields.

    They are sorted by distance, and then newest first. ``phash`` is the hash of the image to which they are similar, or None if
    it has none; then the list contains only exact copies. ``is_complete`` is False if so many images look alike that others may
    be missing on this page. ``next_position`` is None on the last page.
    """

    images: list[tuple[int, Document]]
    phash: str | None
    is_complete: bool
    next_position: Position | None


def find_page(
    db: Db,
    image_id: str,
    stores: AllowedStores,
    *,
    max_distance: int = DEFAULT_DISTANCE,
    per_page: int,
    after: Position | None = None,
    deadline_s: float = 10.0,
) -> Page:
    """Return the images of ``stores`` that are similar to an image, without that image.

    A page has at most ``per_page`` images. It has fewer, or even none, and a ``next_position``, if these are together larger than
    ``MAX_PAGE_BYTES``, if they have just been deleted, or if ``MAX_CHECKED`` images were checked for it.

    :param max_distance: 0 to ``MAX_DISTANCE`` bits.
    :param after: the position at which the previous page ended.
    :raises NotFound: when the image is unknown or deleted, or belongs to another store than ``stores``.
    :raises TooSlow: when finding the images takes longer than ``deadline_s``.
    """
    image = queries.get_image(db, image_id, stores)
    with translate_errors(), pymongo.timeout(deadline_s):
        search = _Search(db, image, stores, max_distance, max_checked=MAX_CHECKED)
        rows = list(islice(search.run(after, per_page + 1), per_page + 1))
        fitting = _count_fitting(rows[:per_page])
        page = rows[:fitting]
        found = {document["_id"]: document for document in db.images.find(search.visible([row.image_id for row in page]), PUBLIC)}
    images = [(row.distance, found[row.image_id]) for row in page if row.image_id in found]
    if fitting < len(rows):
        return Page(images, search.phash, page[-1].is_complete, Position(page[-1].distance, page[-1].image_id))
    return Page(images, search.phash, search.is_complete, search.stopped_at)


def find_ids(db: Db, image_id: str, stores: AllowedStores, *, limit: int = MAX_FOUND, deadline_s: float = 10.0) -> list[str]:
    """Return the ids of the images of ``stores`` that are similar to an image, without that image.

    They are within ``DEFAULT_DISTANCE``. The list is empty if the image is unknown or deleted, or belongs to another store.

    :raises Invalid: when more than ``limit`` images are similar, or when so many images look alike that some cannot be found.
    :raises TooSlow: when finding the images takes longer than ``deadline_s``.
    """
    try:
        image = queries.get_image(db, image_id, stores)
    except NotFound:
        return []
    with translate_errors(), pymongo.timeout(deadline_s):
        search = _Search(db, image, stores, DEFAULT_DISTANCE, max_checked=2 * limit)
        ids = [row.image_id for row in islice(search.run(None, limit + 1), limit + 1)]
    if len(ids) > limit:
        raise _refusal(f"More than {limit:,} images are similar to this one", image_id)
    if search.stopped_at is not None or not search.is_complete:
        raise _refusal("The hashes of so many images resemble that of this one that the similar ones cannot all be found at once", image_id)
    return ids


def _refusal(reason: str, image_id: str) -> Invalid:
    detail = f"{reason}; read them page by page with GET /images/{image_id}/similar."
    return Invalid(detail, errors=[FieldError("/duplicate_of", "bad_value", detail)])


class _Row(NamedTuple):
    """A similar image, its size, and whether no image is missing before it."""

    distance: int
    image_id: str
    bytes: int
    is_complete: bool


def _count_fitting(rows: list[_Row]) -> int:
    """Return how many of the first rows have at most ``MAX_PAGE_BYTES`` together, but at least one if there is one."""
    total = 0
    for count, row in enumerate(rows):
        total += row.bytes
        if count and total > MAX_PAGE_BYTES:
            return count
    return len(rows)


class _Search:
    """One search for similar images. ``stopped_at`` is the position of the last image that was checked, if more were left."""

    def __init__(self, db: Db, image: Document, stores: AllowedStores, max_distance: int, *, max_checked: int) -> None:
        self._db, self._image, self._max_distance = db, image, max_distance
        self._visible = visible_images(stores)
        self.phash: str | None = image.get("phash")
        self._hashes = None if self.phash is None else CloseHashes(db, self.phash, max_distance)
        self._checks_left = max_checked
        self.stopped_at: Position | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no image is missing up to the distance that ``run`` has reached."""
        return self._hashes is None or self._hashes.is_complete

    def visible(self, ids: list[str], **conditions: Any) -> dict[str, Any]:
        """Return the query for those of some images that the reader may see, and that meet the conditions."""
        return {"$and": [{"_id": {"$in": ids}}, self._visible, conditions]}

    def run(self, after: Position | None, limit: int) -> Iterator[_Row]:
        """Yield the similar images after a position, in order. The caller needs at most ``limit`` of them."""
        first = 0 if after is None else after.distance
        last = 0 if self._hashes is None else self._max_distance
        for distance in range(first, last + 1):
            before = after.image_id if after is not None and distance == first else None
            hashes = [] if self._hashes is None else self._hashes.find(distance)
            yield from self._read(distance, hashes, before, limit)
            if self.stopped_at is not None:
                return

    def _read(self, distance: int, hashes: list[str], before: str | None, limit: int) -> Iterator[_Row]:
        """Yield the images of one distance, newest first. Exact copies have the distance 0, whatever their hash is."""
        conditions = {"sha256": {"$ne": self._image["sha256"]}} if distance else {}
        fields = {"_id": 1, "bytes": {"$bsonSize": "$$ROOT"}}
        number = limit
        while ids := self._find_ids(distance, hashes, before, min(number, self._checks_left)):
            rows = {row["_id"]: row["bytes"] for row in self._db.images.find(self.visible(ids, **conditions), fields)}
            yield from (_Row(distance, image_id, rows[image_id], self.is_complete) for image_id in ids if image_id in rows)
            before = ids[-1]
            self._checks_left -= len(ids)
            if self._checks_left <= 0:
                self.stopped_at = Position(distance, before)
                return
            if len(ids) < number:
                return
            number *= 2  # the reader may see few of them

    def _find_ids(self, distance: int, hashes: list[str], before: str | None, limit: int) -> list[str]:
        """Return the ids of the first images of one distance, also of those that the reader may not see. Only indexes are read."""
        ids = {"$ne": self._image["_id"]} | ({} if before is None else {"$lt": before})
        found: list[Iterable[str]] = []
        if distance == 0:
            copies = {"sha256": self._image["sha256"], "status": {"$in": ENDED_STATES}, "_id": ids}
            found.append(self._read_ids(copies, limit, "sha256_1__id_-1"))
        if hashes:
            # MongoDB merges the index entries of up to 200 hashes in their order. For more, it reads and sorts them all.
            found.append(self._read_ids({"phash": {"$in": hashes} | _HAS_HASH, "_id": ids}, limit, "phash"))
        return list(islice(_distinct(heapq.merge(*found, reverse=True)), limit))

    def _read_ids(self, query: dict[str, Any], limit: int, index: str) -> list[str]:
        return [row["_id"] for row in self._db.images.find(query, {"_id": 1}, hint=index).sort("_id", DESCENDING).limit(limit)]


def _distinct(ids: Iterable[str]) -> Iterator[str]:
    last = None
    for image_id in ids:
        if image_id != last:
            yield image_id
        last = image_id
