"""Keep the page index up to date."""

import logging

from shared.bootstrap import Stores
from shared.ledger import page_index

_log = logging.getLogger("shelfsight.error")


def maintain(stores: Stores) -> bool:
    """Add new batches to the page index, and recount the batches in some of its segments.

    :returns: whether the stored count of a segment was wrong. It has then been corrected.
    """
    page_index.maintain(stores.db)
    wrong = page_index.recount(stores.db)
    if wrong:
        _log.warning("sweep: %d wrong segment counts in the page index were corrected", wrong)
    return bool(wrong)
