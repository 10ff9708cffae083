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
        newest = "the newest" if found.newest is None else repr(found.newest)
        if found.missing:
            _log.critical(
                "sweep: %d image documents are missing in the batches after %r up to %s, "
                "so documents were removed by hand or lost; restore a backup",
                found.missing, found.after, newest,
            )  # fmt: skip
        else:
            _log.warning("sweep: the batches after %r up to %s are complete again", found.after, newest)
    return not refreshed.complete
