"""The conditions of a list of batches or of images, and the query for the images that meet them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, Self

from pymongo import DESCENDING

from shared.allowed_stores import AllowedStores, intersect_stores
from shared.ids import batch_range
from shared.ledger.batch_images import visible_images
from shared.states import BatchState, ImageState
from shared.storage.schema import ENDED_STATES, EPOCH, RARE_STATES

_EQUAL: Final = ("camera_id", "barcode", "sha256", "barcode_check")
_RANGES: Final = {
    "quality.sharpness": ("min_sharpness", "max_sharpness"),
    "quality.brightness": ("min_brightness", "max_brightness"),
}
_UNENDED: Final = [ImageState.QUEUED.value, ImageState.PROCESSING.value]


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """A query for images, of which one condition of each of the ``alternatives`` must hold, and all ``others``.

    If it ``is_rare``, it names states for which ``rare_states`` is the index. Then it is sorted by ``sort_by_id``, which is the
    order of the ids, but is served by that index.
    """

    others: dict[str, Any]
    alternatives: list[list[dict[str, Any]]]
    is_rare: bool

    def along_ids(self, *also: dict[str, Any]) -> dict[str, Any]:
        """Return the MongoDB query for counts and for the order of the ids.

        An alternative contains all conditions, so that MongoDB reads each along its own index, from the right id on, and merges
        them. Otherwise it would begin with the first id, or read the documents twice (measured).

        :param also: further conditions, such as one for ``_id``.
        """
        queries = self.separately(*also)
        return {"$or": queries} if len(queries) > 1 else queries[0]

    def separately(self, *also: dict[str, Any]) -> list[dict[str, Any]]:
        """Return MongoDB queries that together return all images. More than one of them can return an image.

        :param also: further conditions.
        """
        if len(self.alternatives) != 1:
            return [self.along_field(*also)]
        return [_all_of(self.others, *also, condition) for condition in self.alternatives[0]]

    def along_field(self, *also: dict[str, Any]) -> dict[str, Any]:
        """Return the MongoDB query for the order of another field, the index of which MongoDB can read in order.

        :param also: further conditions.
        """
        return _all_of(self.others, *({"$or": conditions} for conditions in self.alternatives), *also)

    def sort_by_id(self, direction: int = DESCENDING) -> list[tuple[str, int]]:
        """Return the sort specification for the order of the ids."""
        return [*([("batch_id", direction)] if self.is_rare else []), ("_id", direction)]


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions for images, all of which one image must meet. A batch is listed if one of its images meets them.

    ``label`` and ``min_score`` are about the annotations of an image if it has a list of them, and otherwise about its
    detections. If both are set, the same detection must meet both. An annotation has no score and meets any ``min_score``.
    ``since`` and ``until`` (naive UTC, inclusive) apply to the ``timestamp`` of the image. ``tag_ids`` are all ids that mean
    one tag. ``untagged`` are the ids that mean no tag any more, because their tags were deleted: an image is untagged if it
    has no others. ``ids`` are the ids of the images among which to search. ``status`` is the state of the image, except for
    ``partial``, which is the state of its batch, or of the part of its batch that the reader may see; only lists of batches
    know it.
    """

    store_name: str | None = None
    camera_id: str | None = None
    barcode: str | None = None
    status: str | None = None
    label: str | None = None
    min_score: float | None = None
    tag_ids: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    batch_id: str | None = None
    sha256: str | None = None
    barcode_check: str | None = None
    untagged: tuple[str, ...] | None = None
    annotated: bool | None = None
    min_sharpness: float | None = None
    max_sharpness: float | None = None
    min_brightness: float | None = None
    max_brightness: float | None = None
    ids: tuple[str, ...] | None = None

    @property
    def can_use_page_index(self) -> bool:
        """Whether the page index can be used, that is, no condition other than ``store_name`` is set."""
        return self == Filters(store_name=self.store_name)

    @property
    def has_ordered_index(self) -> bool:
        """Whether an index in the order of the ids finds the images that meet a condition other than ``store_name``."""
        named = (self.camera_id, self.barcode, self.label, self.tag_ids, self.batch_id, self.sha256, self.barcode_check, self.untagged, self.ids)
        return self.is_rare or self.annotated is True or any(value is not None for value in named)

    @property
    def has_index(self) -> bool:
        """Whether an index finds the images that meet a condition other than ``store_name``, in whatever order."""
        bounds = (self.since, self.until, self.min_sharpness, self.max_sharpness, self.min_brightness, self.max_brightness)
        return self.has_ordered_index or any(bound is not None for bound in bounds)

    @property
    def is_rare(self) -> bool:
        """Whether a state is named for which ``rare_states`` is the index."""
        return self.status in RARE_STATES

    @property
    def exclude_all(self) -> bool:
        """Whether no image can meet the conditions, because two of them contradict each other, or one names no values.

        An image with a tag is not untagged, unless the tag was deleted after ``tag_ids`` was read.
        """
        bounds = [(self.since, self.until), *((getattr(self, least), getattr(self, most)) for least, most in _RANGES.values())]
        if any(least is not None and most is not None and least > most for least, most in bounds):
            return True
        if self.tag_ids is not None and self.untagged is not None and set(self.tag_ids).isdisjoint(self.untagged):
            return True
        return self.tag_ids == () or self.ids == ()

    def to_document(self) -> dict[str, Any]:
        """Return the conditions that are set in a form that MongoDB can store. ``from_document`` reads it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the conditions that ``to_document`` returned."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
        return cls(**values)

    def limit_stores(self, stores: AllowedStores) -> AllowedStores:
        """Return those of the reader's ``stores`` whose images can meet the conditions."""
        return intersect_stores(stores, None if self.store_name is None else frozenset({self.store_name}))

    def query(self, stores: AllowedStores, *also: dict[str, Any]) -> dict[str, Any]:
        """Return the MongoDB query for the images of the reader's ``stores`` that meet the conditions.

        :param also: further conditions. One for ``_id`` belongs here, so that it limits what is read of an index.
        """
        return self.image_query(stores).along_ids(*also)

    def image_query(self, stores: AllowedStores) -> ImageQuery:
        """Return the query for the images of the reader's ``stores`` that meet the conditions."""
        others = visible_images(self.limit_stores(stores)) | self._plain_conditions()
        return ImageQuery(others, self._alternatives(), self.is_rare)

    def image_queries(self, stores: AllowedStores) -> list[ImageQuery]:
        """Return queries that together return what ``image_query`` returns, and of which no two return the same image.

        The index of ``sha256`` contains no image that is not processed yet, so its queries are by state.
        """
        whole = self.image_query(stores)
        if self.sha256 is None or (self.status is not None and self.status != BatchState.PARTIAL):
            return [whole]
        # MongoDB uses a partial index for a query with the same list of states or with one of them, but not with some of them.
        # Images go through the states in this order, so one that changes its state in the meantime can be found twice, but is
        # not missed.
        unended = [replace(whole, others=whole.others | {"status": state}, is_rare=True) for state in _UNENDED]
        return [*unended, replace(whole, others=whole.others | {"status": {"$in": ENDED_STATES}})]

    def _plain_conditions(self) -> dict[str, Any]:
        query = {name: getattr(self, name) for name in _EQUAL if getattr(self, name) is not None}
        if self.status is not None and self.status != BatchState.PARTIAL:
            query["status"] = self.status
        if self.tag_ids is not None:
            query["tags.id"] = {"$in": list(self.tag_ids)}
        if self.untagged == ():
            query["tags"] = []
        if self.annotated is not None:
            query |= {"annotated_at": {"$gt": EPOCH}} if self.annotated else {"annotations": None}
        if self.since is not None or self.until is not None:
            query["timestamp"] = _between(self.since, self.until)
        if self.min_score is not None and self.label is None:
            detected = {"annotations": None, "detections": {"$elemMatch": {"score": {"$gte": self.min_score}}}}
            query["$or"] = [{"annotations.label": {"$gt": ""}}, detected]
        return query | self._ranges()

    def _ranges(self) -> dict[str, Any]:
        query: dict[str, Any] = {}
        for name, bounds in _RANGES.items():
            least, most = (getattr(self, bound) for bound in bounds)
            if least is not None or most is not None:
                query[name] = _between(least or 0, most)  # a partial index is used only for a query with a lower bound
        if self.batch_id is not None:
            query["_id"] = batch_range(self.batch_id)
        if self.ids is not None:
            query["_id"] = query.get("_id", {}) | {"$in": list(self.ids)}
        return query

    def _alternatives(self) -> list[list[dict[str, Any]]]:
        """Return lists of conditions, each of which an index finds in the order of the ids. Of each list, one must hold."""
        alternatives = []
        if self.label is not None:
            detected: dict[str, Any] = {"annotations": None, "detections.label": self.label}
            if self.min_score is not None:
                detected["detections"] = {"$elemMatch": {"label": self.label, "score": {"$gte": self.min_score}}}
            seen = [{"annotations.label": self.label}, detected]
            alternatives.append(seen if self.annotated is None else seen[:1] if self.annotated else seen[1:])
        if self.untagged:
            deleted = list(self.untagged)
            only_deleted = {"tags.id": {"$in": deleted}, "tags": {"$not": {"$elemMatch": {"id": {"$nin": deleted}}}}}
            alternatives.append([{"tags": []}, only_deleted])
        return alternatives


def _between(least: Any, most: Any) -> dict[str, Any]:
    return {operator: value for operator, value in (("$gte", least), ("$lte", most)) if value is not None}


def _all_of(*conditions: dict[str, Any]) -> dict[str, Any]:
    """Return the condition that all conditions hold. A name that several of them have needs an ``$and``."""
    names = [name for condition in conditions for name in condition]
    if len(names) != len(set(names)):
        return {"$and": [condition for condition in conditions if condition]}
    return {name: value for condition in conditions for name, value in condition.items()}
