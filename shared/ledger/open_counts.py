"""Counts the images of open batches by state, for responses. Only indexes are read, whatever the results' size is."""

from collections.abc import Sequence
from typing import Any, Final

from shared.states import ImageState
from shared.storage.mongo import Db
from shared.storage.schema import RARE_STATES

_BY_BATCH: Final = {"batch_id": 1, "index": 1}


def count_open(db: Db, batch_ids: Sequence[str], deadline_ms: int) -> dict[str, dict[str, int]]:
    """Return the number of images in each batch by state: ``{batch id: {state: count}}``.

    Done images are all images without those in other states. All images are counted last, so an image that ends in
    the meantime counts as in its earlier state, and the numbers of a batch always add up to all its images. An image that
    is claimed in the meantime can be missed in both states, and then counts as done until the next call. There is no
    snapshot for both queries, because MongoDB refuses to read from one while an index is being built.

    :raises TooSlow: when one of the two queries takes longer than ``deadline_ms``.
    """
    if not batch_ids:
        return {}
    among = {"$in": list(batch_ids)}
    # With fewer states than the filter of the index names, MongoDB would read each document, too.
    rare = {"status": {"$in": RARE_STATES}, "batch_id": among}
    by_state = {"_id": {"batch": "$batch_id", "state": "$status"}, "n": {"$sum": 1}}
    counts: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for group in _count(db, rare, by_state, "unfinished_or_bad", deadline_ms):
        counts[group["_id"]["batch"]][group["_id"]["state"]] = group["n"]
    all_images = {"_id": "$batch_id", "n": {"$sum": 1}}
    for group in _count(db, {"batch_id": among}, all_images, _BY_BATCH, deadline_ms):
        states = counts[group["_id"]]
        states[ImageState.DONE.value] = max(0, group["n"] - sum(states.values()))  # below 0 after a deletion in between
    return counts


def _count(db: Db, images: dict[str, Any], group: dict[str, Any], hint: Any, deadline_ms: int) -> list[dict[str, Any]]:
    pipeline = [{"$match": images}, {"$group": group}]
    return list(db.images.aggregate(pipeline, hint=hint, maxTimeMS=deadline_ms))
