"""Corrects the fields of an image that its upload set, and moves an image to another store."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymongo.client_session import ClientSession

from shared import failpoints
from shared.allowed_stores import AllowedStores
from shared.barcode_checks import check
from shared.catalog import corrections
from shared.catalog.image_changes import Precondition, change_image
from shared.errors import FieldError, Forbidden, ShelfsightError
from shared.ledger import standing_images, turns
from shared.ledger.shown_results import shown_fence
from shared.states import ImageState
from shared.storage.mongo import Db, Document


@dataclass(frozen=True, slots=True)
class Corrected:
    """A corrected image as stored, and the names of the fields that have changed, in alphabetical order."""

    image: Document
    changed: tuple[str, ...]


def correct(
    db: Db,
    image_id: str,
    stores: AllowedStores,
    fields: Mapping[str, Any],
    *,
    by: str | None = None,
    precondition: Precondition = lambda _: None,
) -> Corrected:
    """Set fields of an image, in one transaction with everything that depends on them.

    If ``barcode`` changes, the ``barcode_check`` of an image with a result is repeated. If ``store_name`` changes, the image moves to
    another store, and so it does in the lists of batches and in the counts of tags.

    :param stores: the stores in which the caller may change images.
    :param fields: new values of ``timestamp`` (naive UTC), ``store_name``, ``camera_id``, ``barcode`` (or None) and
        ``extra``; any of them.
    :param by: who makes the change (``Principal.by``).
    :param precondition: is called with the stored image before it is changed.
    :raises NotFound: when the image is unknown or deleted.
    :raises Forbidden: when it belongs to another store, or is to be moved to one (``foreign_store``).
    :raises StoreAway: when MongoDB does not respond. The image may still have been changed.
    """
    changed: tuple[str, ...] = ()

    def change(image: Document, session: ClientSession) -> Document | None:
        nonlocal changed
        new = {name: value for name, value in fields.items() if image[name] != value}
        changed = tuple(sorted(new))
        recorded = corrections.of_fields(image, new, by)
        if "barcode" in new and shown_fence(image) is not None:
            new["barcode_check"] = check(new["barcode"], image["barcodes"])
        if "store_name" in new:
            _check_store(new["store_name"], stores)
            standing_images.move_image(db, session, image, new["store_name"])
            failpoints.reach("11-image-move-uncommitted")
        return {"$set": new | recorded} if new else None

    image = change_image(db, image_id, stores, change, precondition=precondition)
    if "store_name" in changed:
        failpoints.reach("11-image-move-committed")
        if image["status"] == ImageState.QUEUED:
            with suppress(ShelfsightError):  # otherwise, the sweep gives the store its turn
                turns.touch(db, [turns.turn_of(image)])
    return Corrected(image, changed)


def _check_store(store: str, stores: AllowedStores) -> None:
    if stores is not None and store not in stores:
        detail = f"These credentials do not include the store `{store}`, so the image cannot be moved to it."
        raise Forbidden(detail, code="foreign_store", errors=[FieldError("/store_name", "foreign_store", detail)])
