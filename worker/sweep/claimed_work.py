"""Clean batches and images that a sweep process claims, so that a failure in one of them does not stop the others."""

import logging
import time
from collections.abc import Callable

from shared.errors import ShelfsightError

_log = logging.getLogger("shelfsight.error")


def clean_each(claim: Callable[[], str | None], clean: Callable[[str], None], until: float) -> bool:
    """Claim one batch or image after the other and clean it. An error in one is logged, and its claim expires later.

    The oldest are claimed first. So without this, a few that always fail would keep all newer ones from being cleaned.

    :param claim: returns the id of the next batch or image, or None if there is none. Its errors are raised.
    :param clean: cleans it. If it succeeds, it also ends the claim.
    :param until: time limit, in ``time.monotonic`` seconds. At least one is cleaned.
    :returns: whether the time limit was reached, so there may be more to do.
    """
    while claimed_id := claim():
        try:
            clean(claimed_id)
        except ShelfsightError as error:
            _log.warning("sweep: %s was not cleaned: %s: %s", claimed_id, error.code, error.detail)
        except Exception:  # noqa: BLE001 -- a failure in one batch must not stop the others
            _log.exception("sweep: %s was not cleaned because of an unexpected error", claimed_id)
        if time.monotonic() > until:
            return True
    return False
