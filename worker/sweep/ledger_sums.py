"""Keep the sums of the ledger up to date, which ``/metrics`` shows."""

import logging

from shared.bootstrap import Stores
from shared.ledger import sums
from shared.ledger.imbalances import UnbalancedBatches

_log = logging.getLogger("shelfsight.error")


def refresh(stores: Stores, until: float) -> bool:
    """Count new batches and recount older ones. Log where image documents are missing, and of which batches.

    :param until: time limit, in ``time.monotonic`` seconds.
    :returns: whether there is more to count.
    """
    refreshed = sums.refresh(stores.db, until)
    for found in refreshed.imbalances:
        newest = "the newest" if found.newest is None else repr(found.newest)
        if found.missing > 0:
            _log.critical(
                "sweep: %d image documents are missing in the batches after %r up to %s, "
                "so documents were removed by hand or lost; restore a backup. %s",
                found.missing, found.after, newest, _describe(found.batches),
            )  # fmt: skip
        elif found.missing < 0:
            _log.critical(
                "sweep: there are %d image documents too many in the batches after %r up to %s, so documents were added by hand. %s",
                -found.missing, found.after, newest, _describe(found.batches),
            )  # fmt: skip
        else:
            _log.warning("sweep: the batches after %r up to %s are complete again", found.after, newest)
    return not refreshed.complete


def _describe(batches: UnbalancedBatches) -> str:
    if not batches.count:
        return "The batches are looked for again soon."
    named = ", ".join(f"{batch_id} ({missing} missing)" if missing > 0 else f"{batch_id} ({-missing} too many)" for batch_id, missing in batches.named)
    more = batches.count - len(batches.named)
    return f"Batches: {named}{f' and {more} more' if more else ''}"
