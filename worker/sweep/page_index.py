"""Upkeep of the page index."""

import logging

from shared.bootstrap import Stores
from shared.ledger import page_index

_log = logging.getLogger("shelfsight.error")


def maintain(stores: Stores) -> bool:
    """Index new batches and recount some segments; whether a count was wrong."""
    page_index.maintain(stores.db)
    wrong = page_index.recount(stores.db)
    if wrong:
        _log.warning("sweep: %d segment counts were corrected", wrong)
    return bool(wrong)
