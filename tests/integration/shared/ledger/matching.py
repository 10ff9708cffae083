"""Evaluates filters in plain Python, for comparison with the results of queries."""

from typing import Any

from shared.ledger.filters import Filters
from shared.storage.mongo import Document


def matches(image: Document, batch_status: str, filters: Filters) -> bool:
    """Return whether an image in a batch with this status meets all conditions."""
    partial = filters.status == "partial"
    conditions = [
        not partial or batch_status == "partial",
        partial or filters.status in {None, image["status"]},
        filters.tag_ids is None or any(tag["id"] in filters.tag_ids for tag in image["tags"]),
        filters.untagged is None or all(tag["id"] in filters.untagged for tag in image["tags"]),
        filters.annotated in {None, image.get("annotations") is not None},
        filters.ids is None or image["_id"] in filters.ids,
        _within(filters.since, image["timestamp"], filters.until),
        *(
            getattr(filters, name) in {None, image[name]}
            for name in ("store_name", "camera_id", "barcode", "batch_id", "sha256", "barcode_check")
        ),
        *(
            _within(getattr(filters, f"min_{name}"), (image["quality"] or {}).get(name), getattr(filters, f"max_{name}"))
            for name in ("sharpness", "brightness")
        ),
    ]
    if filters.label is not None or filters.min_score is not None:
        conditions.append(_shows(image, filters.label, filters.min_score))
    return all(conditions)


def _within(least: Any, value: Any, most: Any) -> bool:
    if least is None and most is None:
        return True
    return value is not None and (least is None or least <= value) and (most is None or value <= most)


def _shows(image: Document, label: str | None, min_score: float | None) -> bool:
    annotations = image.get("annotations")
    seen = image["detections"] if annotations is None else [{"score": 1.0} | annotation for annotation in annotations]
    return any(label in {None, one["label"]} and (min_score is None or one["score"] >= min_score) for one in seen)
