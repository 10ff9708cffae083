"""Refuse uploads while no worker has taken up the oldest images for too long."""

from collections.abc import Callable
from typing import Final

from shared import telemetry
from shared.errors import ReducedCapacity
from shared.ledger.waits import Wait
from web.cached_value import RefreshedValue

_MIN_PAUSE_S: Final = 2.0
_RETRY_AFTER_S: Final = 300
"""After a day, a client need not ask every minute."""


class QueueAge:
    """Measures in the background for how long the oldest images have waited. Thread-safe."""

    def __init__(self, limit_s: int, measure: Callable[[], Wait | None]) -> None:
        """Create the check.

        :param limit_s: the longest wait, in seconds, with which uploads are accepted. With 0, nothing is measured.
        """
        self._limit_s = limit_s
        self._measured = RefreshedValue(_MIN_PAUSE_S, measure)
        self._reported = telemetry.RepeatLimit(telemetry.REPEAT_INTERVAL_S)
        self.close = self._measured.close

    def check(self) -> None:
        """Refuse an upload if the oldest images have waited for too long. The log says which batch they belong to.

        :raises ReducedCapacity: when they have waited longer than the limit.
        :raises StoreAway: when the database has not responded since the process started.
        """
        wait = self._measured.get() if self._limit_s else None
        if wait is None or wait.seconds <= self._limit_s:
            return
        if self._reported.count_omitted(wait.batch_id) is not None:
            telemetry.errors.warning("uploads are refused: no worker has taken up images of the account of batch %s for %.0f s", wait.batch_id, wait.seconds)
        raise ReducedCapacity(
            "Images have been waiting to be processed for too long; retry later.",
            retry_after=_RETRY_AFTER_S,
            extra={"limit": "max_queue_age_s", "value": self._limit_s, "age_s": round(wait.seconds)},
        )
