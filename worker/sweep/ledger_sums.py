"""Keep the sums of the ledger up to date, which ``/metrics`` shows."""

import logging

from shared.bootstrap import Stores
from shared.ledger import sums

_log = logging.getLogger("shelfsight.error")


def refresh(stores: Stores, until: float) -> bool:
    """Count new batches and recount older ones. Log where image documents are missing.

    :param until: time limit, in ``time.monotonic`` seconds.
    :returns: whether there is more to count.
    """
    refreshed = sums.refresh(stores.db, until)
    for found in refreshed.imbalances:
        if found.missing:
            _log.critical(
                "sweep: %d image documents are missing in the batches after %r up to %r, "
                "so documents were removed by hand or lost; restore a backup",
                found.missing, found.after, found.newest,
            )  # fmt: skip
        else:
            _log.warning("sweep: the batches after %r up to %r are complete again", found.after, found.newest)
    return not refreshed.complete
