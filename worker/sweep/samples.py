"""Check a few random originals from time to time, because their spools, the second copies, are deleted.

When a worker stores an original, its bytes are right. A disk can damage them later. Nothing can repair them then, but an
operator has to know.
"""

import logging
import time
from typing import Final

from shared.bootstrap import Stores
from shared.errors import StoreAway, StoreMisconfigured
from shared.ledger import original_checks
from shared.storage.mongo import Document
from worker.spools import originals
from worker.spools.store_check import check_store

_log = logging.getLogger("shelfsight.error")
_MAX_BYTES: Final = 16 * 1024 * 1024
"""No further original is read in a call after this many bytes."""
_MAX_IMAGES: Final = 32


def check(stores: Stores, until: float) -> None:
    """Hash the originals of random images, and report those that are missing or damaged.

    There is always more to check, so a call that stops at a limit is not continued at the next tick.

    :param until: time limit, in ``time.monotonic`` seconds. At least one image is chosen.
    """
    checked = damaged = size = 0
    for _ in range(_MAX_IMAGES):
        image = original_checks.choose_image(stores.db)
        if image is not None:
            checked += 1
            damaged += not _is_intact(stores, image)
            size += image["file_size"]
        if size > _MAX_BYTES or time.monotonic() > until:
            break
    if checked:
        original_checks.count(stores.db, checked=checked, damaged=damaged)


def _is_intact(stores: Stores, image: Document) -> bool:
    """Check one original, and report it unless all files are missing or its batch has just been deleted."""
    try:
        if originals.is_intact(stores.blobs, image):
            return True
    except StoreMisconfigured:
        raise
    except StoreAway:
        check_store(stores.identity, stores.blobs)  # raises an error if the cause is not this original
    if not originals.is_lost(stores, image):
        return True
    _log.critical("the original of image %s is missing or damaged", image["_id"])
    return False
