"""Keep the page index up to date."""

import logging
import time

from shared.bootstrap import Stores
from shared.ledger import page_index

_log = logging.getLogger("shelfsight.error")


def maintain(stores: Stores) -> bool:
    """Add new batches to the page index, and recount the batches in some of its segments.

    If this takes longer than a quarter of the sweep interval, the rest is left for the next call.

    :returns: whether the stored count of a segment was wrong. It has then been corrected.
    """
    until = time.monotonic() + stores.settings.sweep.interval_s / 4
    page_index.maintain(stores.db, until=until)
    wrong = page_index.recount(stores.db, until=until)
    if wrong:
        _log.warning("sweep: %d wrong counts in the page index were corrected", wrong)
    return bool(wrong)
