"""Reads and changes the annotations of an image: what people say is in the picture, beside what the model says.

An image whose annotations are None has been looked at by nobody. Boxes are in pixels of the upright picture, so annotations are
possible once the image has been processed. Each change is one transaction (``image_changes``). Workers do not write the fields
of annotations, so reprocessing leaves them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.catalog import corrections
from shared.catalog.annotation_rules import MAX_ANNOTATIONS, clip_box, read_box
from shared.catalog.image_changes import Precondition, change_image
from shared.clock import utc_now
from shared.errors import Conflict, FieldError, Invalid
from shared.ids import new_id
from shared.states import ImageState
from shared.storage.mongo import Db, Document

_Edit = Callable[[Document], list[Document] | None]
"""A function that gets the stored image and returns its new annotations. It can be called more than once."""


@dataclass(frozen=True, slots=True)
class NewBox:
    """A box of a new list of annotations. ``id`` is that of the annotation that it replaces or keeps, else None.

    ``label`` is a label that ``annotation_rules.read_label`` returned; ``box`` has four finite numbers.
    """

    label: str
    box: Sequence[float]
    id: str | None = None


def replace(
    db: Db, image_id: str, stores: AllowedStores, boxes: Sequence[NewBox], by: str | None, precondition: Precondition
) -> Document:
    """Replace all annotations of an image, and return the image as stored.

    An annotation whose id, label and box are sent stays as it is. If its id is sent with another label or box, ``by`` and
    ``at`` are set anew. If nothing changes, the image is not written.

    :param boxes: at most ``MAX_ANNOTATIONS``.
    :param by: who makes the change (``Principal.by``).
    :raises Invalid: when a box is not inside the picture or has no area, or when an id is unknown or repeated. The exception
        has an error for each of them, and nothing has been changed.
    :raises Conflict: when the size of the picture is not known (``image_not_processed``).
    :raises NotFound: when the image is unknown or deleted.
    :raises Forbidden: when it belongs to another store than ``stores`` (``foreign_store``).
    """

    def edit(image: Document) -> list[Document]:
        return _replaced(image, boxes, by)

    return _change(db, image_id, stores, edit, by, precondition)


def remove(db: Db, image_id: str, stores: AllowedStores, by: str | None, precondition: Precondition) -> Document:
    """Remove all annotations of an image, as if nobody had looked at it, and return the image as stored.

    :param by: who makes the change (``Principal.by``).
    :raises NotFound: when the image is unknown or deleted.
    :raises Forbidden: when it belongs to another store than ``stores`` (``foreign_store``).
    """
    return _change(db, image_id, stores, lambda _: None, by, precondition)


def accept_detections(
    db: Db, image_id: str, stores: AllowedStores, min_score: float, by: str | None, precondition: Precondition
) -> Document:
    """Add the detections of an image to its annotations, and return the image as stored.

    Boxes are clipped to the picture, and those without area are left out. So are detections whose label and box an
    annotation has already, so that a repetition changes nothing.

    :param min_score: the least score of the detections, 0 to 1.
    :param by: who makes the change (``Principal.by``).
    :raises Invalid: when the image would have more than ``MAX_ANNOTATIONS``.
    :raises Conflict: when the size of the picture is not known (``image_not_processed``).
    :raises NotFound: when the image is unknown or deleted.
    :raises Forbidden: when it belongs to another store than ``stores`` (``foreign_store``).
    """

    def edit(image: Document) -> list[Document]:
        return _with_detections(image, min_score, by)

    return _change(db, image_id, stores, edit, by, precondition)


def _change(db: Db, image_id: str, stores: AllowedStores, edit: _Edit, by: str | None, precondition: Precondition) -> Document:
    def change(image: Document, _session: ClientSession) -> Document | None:
        before, after = image.get("annotations"), edit(image)
        if after == before:
            return None
        recorded = corrections.of_annotations(image, None if after is None else len(after), by)
        increased = {"$inc": {"annotations_revision": 1}}
        if after is None:
            return increased | {"$set": {"annotations": None} | recorded, "$unset": {"annotated_at": ""}}
        return increased | {"$set": {"annotations": after, "annotated_at": utc_now()} | recorded}

    return change_image(db, image_id, stores, change, precondition=precondition)


def _replaced(image: Document, boxes: Sequence[NewBox], by: str | None) -> list[Document]:
    width, height = _size(image)
    existing = {annotation["id"]: annotation for annotation in image.get("annotations") or ()}
    annotations: list[Document] = []
    errors: list[FieldError] = []
    seen: set[str] = set()
    at = utc_now()
    for index, new in enumerate(boxes):
        box: list[float] = []
        try:
            box = read_box(new.box, width, height)
        except ValueError as error:
            errors.append(FieldError(f"/boxes/{index}/box", "bad_value", str(error)))
        if new.id is not None:
            fault = _UNKNOWN_ID if new.id not in existing else _REPEATED_ID if new.id in seen else None
            if fault is not None:
                errors.append(FieldError(f"/boxes/{index}/id", "bad_value", fault))
            seen.add(new.id)
        if not errors:
            annotations.append(_annotation(new, box, existing, {"by": by, "at": at}))
    if errors:
        raise Invalid("The list has invalid boxes; see the `errors` field. Nothing was changed.", errors=errors)
    return annotations


_UNKNOWN_ID: Final = "The image has no annotation with this id; omit the id of a new box."
_REPEATED_ID: Final = "This id is repeated; send it once."


def _annotation(new: NewBox, box: list[float], existing: dict[str, Document], set_by: dict[str, Any]) -> Document:
    if new.id is None:
        return _stored(new_id(), new.label, box, "drawn", set_by)
    old = existing[new.id]
    if (old["label"], old["box"]) == (new.label, box):
        return old
    return _stored(new.id, new.label, box, old["from"], set_by)


def _with_detections(image: Document, min_score: float, by: str | None) -> list[Document]:
    width, height = _size(image)
    annotations = list(image.get("annotations") or ())
    present = {(annotation["label"], *annotation["box"]) for annotation in annotations}
    set_by = {"by": by, "at": utc_now()}
    for detection in image["detections"]:
        box = clip_box(detection["box"], width, height) if detection["score"] >= min_score else None
        if box is not None and (detection["label"], *box) not in present:
            present.add((detection["label"], *box))
            annotations.append(_stored(new_id(), detection["label"], box, "detection", set_by))
    if len(annotations) > MAX_ANNOTATIONS:
        detail = f"The image would have {len(annotations)} annotations, and can have {MAX_ANNOTATIONS}; send a higher min_score."
        raise Invalid(detail, errors=[FieldError("/min_score", "bad_value", detail)])
    return annotations


def _stored(annotation_id: str, label: str, box: list[float], origin: str, set_by: dict[str, Any]) -> Document:
    return {"id": annotation_id, "label": label, "box": box, **set_by, "from": origin}


def _size(image: Document) -> tuple[int, int]:
    """Return the width and the height of the upright picture."""
    width, height = image["width"], image["height"]
    if width is not None and height is not None:
        return width, height
    if image["status"] in {ImageState.QUEUED, ImageState.PROCESSING}:
        raise Conflict("The image has not been processed yet, so its size is not known; retry once it is done.", code="image_not_processed", retry_after=5)
    raise Conflict("The image was not processed, so its size is not known; it cannot be annotated.", code="image_not_processed")
