"""Counts the images of batches by state, for responses. It reads indexes, and at most the documents of images that are not done."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.ids import BATCH_ID_LENGTH, batch_range
from shared.states import ImageState
from shared.storage.mongo import Db
from shared.storage.schema import RARE_STATES

_BY_BATCH: Final = {"batch_id": 1, "index": 1}
_BY_STORE: Final = {"store_name": 1, "_id": -1}
_BATCH_OF_ID: Final = {"$substrBytes": ["$_id", 0, BATCH_ID_LENGTH]}


def count_open(db: Db, batch_ids: Sequence[str], deadline_ms: int) -> dict[str, dict[str, int]]:
    """Return the number of images in each batch by state: ``{batch id: {state: count}}``. Only indexes are read.

    Done images are all images without those in other states. All images are counted last, so an image that ends in
    the meantime counts as in its earlier state, and the numbers of a batch always add up to all its images. An image that
    is claimed in the meantime can be missed in both states, and then counts as done until the next call. There is no
    snapshot for both queries, because MongoDB refuses to read from one while an index is being built.

    :raises TooSlow: when one of the two queries takes longer than ``deadline_ms``.
    """
    if not batch_ids:
        return {}
    among = {"batch_id": {"$in": list(batch_ids)}}
    return _count_states(db, batch_ids, among, among, _BY_BATCH, deadline_ms)


def count_parts(db: Db, parts: Mapping[str, frozenset[str]], deadline_ms: int) -> dict[str, dict[str, int]]:
    """Return the same as ``count_open``, but of each batch only the images of some of its stores.

    The documents of images in rare states are read, because no index has their stores. No others are read.

    :param parts: for each batch, the stores whose images count. The batch must have images of all these stores.
    :raises TooSlow: when one of the two queries takes longer than ``deadline_ms``.
    """
    if not parts:
        return {}
    batches_by_stores: dict[frozenset[str], list[str]] = {}
    for batch_id, stores in parts.items():
        batches_by_stores.setdefault(stores, []).append(batch_id)
    in_parts: dict[str, Any] = {
        "$or": [
            {"store_name": {"$in": sorted(stores)}, "batch_id": {"$in": batch_ids}}
            for stores, batch_ids in batches_by_stores.items()
        ]
    }
    # MongoDB reads the index once for each batch. With all ranges of ids in one condition, it takes 200 times as long (measured).
    in_ranges = {"$or": [{"store_name": {"$in": sorted(stores)}, "_id": batch_range(batch_id)} for batch_id, stores in parts.items()]}
    among = {"batch_id": {"$in": list(parts)}}
    return _count_states(db, list(parts), among | in_parts, in_ranges, _BY_STORE, deadline_ms)


def _count_states(
    db: Db, batch_ids: Sequence[str], rare_images: dict[str, Any], images: dict[str, Any], hint: dict[str, int], deadline_ms: int
) -> dict[str, dict[str, int]]:
    # With fewer states than the filter of the index names, MongoDB would read each document, too.
    rare = {"status": {"$in": RARE_STATES}, **rare_images}
    by_state = {"_id": {"batch": "$batch_id", "state": "$status"}, "n": {"$sum": 1}}
    counts: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for group in _count(db, rare, by_state, "rare_states", deadline_ms):
        counts[group["_id"]["batch"]][group["_id"]["state"]] = group["n"]
    all_images = {"_id": "$batch_id" if "batch_id" in hint else _BATCH_OF_ID, "n": {"$sum": 1}}
    for group in _count(db, images, all_images, hint, deadline_ms):
        states = counts[group["_id"]]
        states[ImageState.DONE.value] = max(0, group["n"] - sum(states.values()))  # below 0 after a deletion in between
    return counts


def _count(db: Db, images: dict[str, Any], group: dict[str, Any], hint: Any, deadline_ms: int) -> list[dict[str, Any]]:
    pipeline = [{"$match": images}, {"$group": group}]
    return list(db.images.aggregate(pipeline, hint=hint, maxTimeMS=deadline_ms))
