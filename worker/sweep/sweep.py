"""The sweep. Every two seconds, it finishes work that crashes have interrupted and deletes unneeded data."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from shared.bootstrap import Stores
from worker.sweep import deletions, jobs, ledger_sums, lost_claims, page_index, samples, spools
from worker.sweep.batch_requests import BatchRequests
from worker.sweep.failures import succeeds
from worker.sweep.images import ImageSweep
from worker.sweep.inspections import InspectionSweep
from worker.sweep.leader import Leader
from worker.sweep.orphans import OrphanedFiles, TemporaryFiles
from worker.sweep.tags import TagSweep

_SHARE: Final = 1 / 14
"""Share of the sweep interval that each clean-up may use in a tick. All of them together use about three quarters."""
_REPAIR_SHARE: Final = 1 / 16
_SUMS_SHARE: Final = 1 / 8


@dataclass(slots=True)
class _CleanUp:
    """A part of the sweep that deletes data or checks files, and the time (``time.monotonic``) when it is due.

    ``clean`` gets a time limit, and returns whether it stopped there. If so, it continues at the next tick. Otherwise,
    and after an error, it is repeated after the clean-up interval.
    """

    clean: Callable[[float], bool | None]
    due: float = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.due


class Sweep:
    """Runs all parts of the sweep.

    Parts that do work per batch or per image run in every sweep process, and share the work by claims in MongoDB. All other
    parts run only while this process is the leader.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._leader = Leader(stores)
        self._images = ImageSweep(stores)
        self._requests = BatchRequests(stores)
        self._inspections = InspectionSweep(stores)
        self._shared = (
            _CleanUp(partial(spools.settle_left, stores)),
            _CleanUp(partial(lost_claims.clean, stores)),
            _CleanUp(partial(deletions.finish_batches, stores)),
            _CleanUp(partial(deletions.finish_images, stores)),
            _CleanUp(partial(samples.check, stores)),
        )
        self._leaders = (
            _CleanUp(spools.OrphanedSpools(stores).clean),
            _CleanUp(OrphanedFiles(stores).clean),
            _CleanUp(TemporaryFiles(stores).clean),
            _CleanUp(self._inspections.clean),
            _CleanUp(TagSweep(stores).clean),
        )

    def tick(self) -> None:
        """Run every part of the sweep that is due. If a part fails, the other parts still run.

        Each of the parts that count or delete data stops after a small share of the sweep interval, so that the wakeups of
        the next tick are not delayed.
        """
        leads = succeeds(self._leader.acquire)
        if leads:
            self._repair()
        due = [part for part in (*self._shared, *(self._leaders if leads else ())) if part.is_due]
        if due and succeeds(self._verify_identity):
            for part in due:
                self._clean(part)

    def _repair(self) -> None:
        for repair in (
            self._images.expire_leases, self._requests.complete, self._images.close_batches, self._images.publish_wakeup
        ):  # fmt: skip
            succeeds(repair, self._after(_REPAIR_SHARE))
        succeeds(self._inspections.repair)
        succeeds(jobs.repair, self._stores)
        succeeds(page_index.maintain, self._stores)
        succeeds(ledger_sums.refresh, self._stores, self._after(_SUMS_SHARE))

    def _clean(self, part: _CleanUp) -> None:
        unfinished = succeeds(part.clean, self._after(_SHARE))
        part.due = time.monotonic() + (0.0 if unfinished else self._stores.settings.sweep.clean_interval_s)

    def _after(self, share: float) -> float:
        """Return the time when a share of the sweep interval will have passed, in ``time.monotonic`` seconds."""
        return time.monotonic() + self._stores.settings.sweep.interval_s * share

    def _verify_identity(self) -> bool:
        self._stores.identity.check()
        return True
