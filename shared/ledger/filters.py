"""The conditions of a list of batches, and the query for the images that meet them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.allowed_stores import AllowedStores, intersect_stores
from shared.ledger.batch_images import visible_images
from shared.states import BatchState


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions for a listing. A batch is listed if an image that its reader may see meets all conditions that are set.

    If both ``label`` and ``min_score`` are set, the same detection must meet both. ``since`` and ``until`` (naive UTC,
    inclusive) apply to the ``timestamp`` of the image. ``status`` is the state of the image, except for ``partial``,
    which is the state of its batch, or of the part of its batch that the reader may see.
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

    def limit_stores(self, stores: AllowedStores) -> AllowedStores:
        """Return those of the reader's ``stores`` whose images can meet the conditions."""
        return intersect_stores(stores, None if self.store_name is None else frozenset({self.store_name}))

    def query(self, stores: AllowedStores) -> dict[str, Any]:
        """Return the MongoDB query for the images of the reader's ``stores`` that meet the conditions."""
        query = visible_images(self.limit_stores(stores))
        for name in ("camera_id", "barcode"):
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
