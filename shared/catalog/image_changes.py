"""Changes one image in a transaction, and gives each version of an image an ETag."""

from collections.abc import Callable
from typing import Any

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.errors import Forbidden, NotFound
from shared.ledger.batch_images import VISIBLE
from shared.storage.mongo import Db, Document, run_transaction

Change = Callable[[Document, ClientSession], Document | None]
"""A function that gets the stored image and the session of the transaction, and returns the MongoDB update of the image, or None
if nothing changes. It may read and write other documents in the session. A transaction can be repeated, so it can be called more
than once."""
Precondition = Callable[[Document], None]
"""A function that gets the stored image, and raises an exception if it may not be changed."""


def etag(image: Document) -> str:
    """Return the entity tag (RFC 9110, 8.8.3), with its quotes, of the stored image."""
    return f'"{image["status"]}-{image["work"]["fence"]}-{image.get("revision") or 0}"'


def annotations_etag(image: Document) -> str:
    """Return the entity tag, with its quotes, of the annotations of the stored image."""
    return f'"annotations-{image.get("annotations_revision") or 0}"'


def change_image(
    db: Db,
    image_id: str,
    stores: AllowedStores,
    change: Change,
    *,
    precondition: Precondition = lambda _: None,
    deadline_s: float = 10.0,
) -> Document:
    """Change an image, and return the changed document as stored.

    Each change also sets ``updated_at``, by the clock of the database as workers do, and increases ``revision``.

    :param stores: the stores in which the caller may change images.
    :param precondition: is called with the image before ``change``.
    :param deadline_s: seconds for all attempts together.
    :raises NotFound: when the image is unknown or deleted.
    :raises Forbidden: when it belongs to another store (``foreign_store``).
    :raises StoreAway: when MongoDB does not respond. The change may still have been made.
    """

    def write(session: ClientSession) -> Document:
        image = find_changeable(db, session, image_id, stores)
        precondition(image)
        update = change(image, session)
        if update is None:
            return image
        whole: dict[str, Any] = dict(update)
        whole["$currentDate"] = whole.get("$currentDate", {}) | {"updated_at": True}
        whole["$inc"] = whole.get("$inc", {}) | {"revision": 1}
        db.images.update_one({"_id": image_id}, whole, session=session)
        changed = db.images.find_one({"_id": image_id}, session=session)
        assert changed is not None  # noqa: S101 -- nothing else can have deleted it in this transaction
        return changed

    return run_transaction(db, write, deadline_s)


def find_changeable(db: Db, session: ClientSession, image_id: str, stores: AllowedStores) -> Document:
    """Return an image as stored, in a transaction that changes it.

    :raises NotFound: when the image is unknown or deleted.
    :raises Forbidden: when it belongs to another store than ``stores`` (``foreign_store``).
    """
    image = db.images.find_one({"_id": image_id, "status": VISIBLE}, session=session)
    if image is None:
        raise NotFound("There is no such image.")
    if stores is not None and image["store_name"] not in stores:
        raise Forbidden("The image belongs to a store that these credentials do not include.", code="foreign_store")
    return image
