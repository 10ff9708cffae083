"""Evaluates filters in plain Python, for comparison with the results of queries."""

from shared.ledger.filters import Filters
from shared.storage.mongo import Document


def matches(image: Document, batch_status: str, filters: Filters) -> bool:
    """Return whether an image in a batch with this status meets all conditions."""
    partial = filters.status == "partial"
    conditions = [
        not partial or batch_status == "partial",
        partial or filters.status in {None, image["status"]},
        filters.tag is None or filters.tag in image["tags"],
        filters.since is None or image["timestamp"] >= filters.since,
        filters.until is None or image["timestamp"] <= filters.until,
        *(getattr(filters, name) in {None, image[name]} for name in ("store_name", "camera_id", "barcode")),
    ]
    if filters.label is not None or filters.min_score is not None:
        conditions.append(
            any(
                filters.label in {None, detection["label"]}
                and (filters.min_score is None or detection["score"] >= filters.min_score)
                for detection in image["detections"]
            )
        )
    return all(conditions)
