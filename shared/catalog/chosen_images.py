"""Checks the ids of images that a request names, before something is done with all of them."""

from collections.abc import Sequence
from typing import Final

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores
from shared.errors import FieldError, Forbidden, Invalid
from shared.ids import batch_of
from shared.ledger import whole_batches
from shared.ledger.batch_images import VISIBLE
from shared.storage.mongo import Db

_MAX_ERRORS: Final = 100
_FOREIGN: Final = "Some images belong to stores that these credentials do not include."


def check(db: Db, session: ClientSession | None, ids: Sequence[str], stores: AllowedStores) -> None:
    """Check that all ids are those of images in ``stores``. Errors of the driver pass.

    :raises Invalid: when some are those of no image (``unknown_image``). It has an error for each of them, up to a limit.
    :raises Forbidden: when some are those of images of other stores (``foreign_store``). It has errors, too.
    """
    rows = db.images.find({"_id": {"$in": list(ids)}, "status": VISIBLE}, {"store_name": 1}, session=session)
    found = {row["_id"]: row["store_name"] for row in rows}
    unknown = [FieldError(f"/ids/{n}", "unknown_image", "There is no such image.") for n, name in enumerate(ids) if name not in found]
    if unknown:
        raise Invalid("Some ids are those of no image; see the `errors` field.", code="unknown_image", errors=unknown[:_MAX_ERRORS])
    if stores is None:
        return
    detail = "The image belongs to a store that these credentials do not include."
    foreign = [FieldError(f"/ids/{n}", "foreign_store", detail) for n, name in enumerate(ids) if found[name] not in stores]
    if foreign:
        raise Forbidden(_FOREIGN, code="foreign_store", errors=foreign[:_MAX_ERRORS])


def check_batches(db: Db, ids: Sequence[str], stores: AllowedStores) -> None:
    """Check that the batches of images have no images of other stores than ``stores``. Errors of the driver pass.

    :raises Forbidden: when some have (``foreign_store``). It has an error for each of their images, up to a limit.
    """
    batches = whole_batches.find_foreign(db, {batch_of(name) for name in ids}, stores)
    detail = "The batch of the image also has images of stores that these credentials do not include."
    foreign = [FieldError(f"/ids/{n}", "foreign_store", detail) for n, name in enumerate(ids) if batch_of(name) in batches]
    if foreign:
        raise Forbidden(_FOREIGN, code="foreign_store", errors=foreign[:_MAX_ERRORS])
