"""Keep the page index up to date."""

import logging

from shared.bootstrap import Stores
from shared.ledger import page_index

_log = logging.getLogger("shelfsight.error")


def maintain(stores: Stores) -> bool:
    """Add new batches to the page index, recount some segments, and return whether a count was wrong."""
    page_index.maintain(stores.db)
    wrong = page_index.recount(stores.db)
    if wrong:
        _log.warning("sweep: %d wrong segment counts in the page index were corrected", wrong)
    return bool(wrong)
