"""Which files of an image are shown: those of its last successful attempt.

The finishing write of a success sets ``shown``. A later attempt raises ``work.fence`` and writes its files into another folder,
but what is shown stays until that attempt succeeds, too. So ``work.fence`` only guards writes, and everything that serves,
publishes or deletes files goes by ``shown``.

Images that the version before has processed have no ``shown``. While such an image is done, its last claim was successful.
"""

from collections.abc import Collection
from typing import Any, Final

from shared.states import ImageState
from shared.storage.mongo import Db, Document, majority, translate_errors

PROCESSING_VERSION: Final = 1
"""The version of everything that is made from an image, apart from the model. Increase it when the same image would get
another result, so that the older results count as stale."""
FIELDS: Final = ("status", "shown", "work.fence")
"""The fields of an image that ``shown_fence`` needs."""

SHOWN: Final[Document] = {
    "$ifNull": ["$shown", {"$cond": [{"$eq": ["$status", ImageState.DONE.value]}, {"fence": "$work.fence"}, "$$REMOVE"]}]
}
"""The aggregation expression for ``shown`` of a stored image."""

_HAS_RESULT: Final = {"$gt": ["$shown.fence", 0]}
STATE_BEFORE: Final[Document] = {
    "$switch": {
        "branches": [
            {"case": _HAS_RESULT, "then": ImageState.DONE.value},
            {"case": {"$gt": ["$error", None]}, "then": ImageState.FAILED.value},
        ],
        "default": ImageState.CANCELLED.value,
    }
}
"""The aggregation expression for the state that a queued image gets if it is not processed any more: that of its last result,
or ``cancelled`` if it has none."""


OPTIONS_BEFORE: Final[Document] = {
    "work.augmentations": {"$cond": [_HAS_RESULT, "$augmentations.name", "$work.augmentations"]},
    "work.detect": {"$cond": [_HAS_RESULT, {"$gt": ["$model", None]}, "$work.detect"]},
}
"""The aggregation expressions that give a queued image the options back with which its last result was made."""


def shown_fence(image: Document) -> int | None:
    """Return the fence under which the files that are shown were written; None if the image has no successful result.

    :param image: a stored image with at least ``FIELDS``.
    """
    shown: dict[str, Any] | None = image.get("shown")
    if shown is not None:
        return int(shown["fence"])
    return int(image["work"]["fence"]) if image["status"] == ImageState.DONE else None


def last_outcome(image: Document) -> ImageState | None:
    """Return the state in which an image has ended last; None if it has never ended.

    An image that was queued again has ended before. As in ``STATE_BEFORE``, it was done if it has a successful result, failed
    if it has an error, and cancelled otherwise.

    :param image: a stored image with at least ``FIELDS``, ``error`` and ``work.generation``.
    """
    if shown_fence(image) is not None:
        return ImageState.DONE
    if image["error"] is not None:
        return ImageState.FAILED
    has_ended = image["status"] == ImageState.CANCELLED or image["work"]["generation"] > 0
    return ImageState.CANCELLED if has_ended else None


def options_of(image: Document) -> Document:
    """Return the fields that give an image the options back with which its last result was made."""
    return {"work.augmentations": [made["name"] for made in image["augmentations"]], "work.detect": image["model"] is not None}


def make_shown(fence: int) -> Document:
    """Return ``shown`` of a successful attempt."""
    return {"fence": fence, "version": PROCESSING_VERSION}


def read_shown_fences(db: Db, image_ids: Collection[str]) -> dict[str, int]:
    """Return ``shown_fence`` of those of the images that have a successful result and are not being deleted.

    No failover undoes what is returned.

    :raises StoreAway: when MongoDB does not respond.
    """
    images = majority(db, "images")
    query = {"_id": {"$in": list(image_ids)}, "status": {"$ne": "deleting"}}
    with translate_errors():
        fences = {image["_id"]: shown_fence(image) for image in images.find(query, dict.fromkeys(FIELDS, 1))}
    return {image_id: fence for image_id, fence in fences.items() if fence is not None}
