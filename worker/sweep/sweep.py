"""The sweep. Every two seconds, one process finishes work that crashes have interrupted and deletes unneeded data."""

import time
from functools import partial

from shared.bootstrap import Stores
from worker.sweep import deletions, images, ledger_sums, lost_claims, page_index, spools
from worker.sweep.failures import succeeds
from worker.sweep.inspections import InspectionSweep
from worker.sweep.leader import Leader
from worker.sweep.orphans import OrphanSweep


class Sweep:
    """Runs all parts of the sweep, but only while this process is the leader."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._leader = Leader(stores)
        self._wakeups = images.WakeupSweep(stores)
        self._inspections = InspectionSweep(stores)
        self._orphans = OrphanSweep(stores)
        self._clean_at = 0.0

    def tick(self) -> None:
        """Run every part of the sweep that is due. If a part fails, the other parts still run.

        Each of the parts that count or delete data stops after about an eighth of the sweep interval, so that the wakeups of
        the next tick are not delayed. If data is left, these parts continue at the next tick. A part that
        failed is repeated at a later tick.
        """
        if not succeeds(self._leader.acquire):
            return
        succeeds(images.expire_leases, self._stores)
        succeeds(images.close_batches, self._stores)
        succeeds(self._wakeups.publish)
        succeeds(self._inspections.repair)
        succeeds(page_index.maintain, self._stores)
        succeeds(ledger_sums.refresh, self._stores, time.monotonic() + self._stores.settings.sweep.interval_s / 8)
        if time.monotonic() >= self._clean_at and succeeds(self._verify_identity):
            self._clean()

    def _clean(self) -> None:
        sweep = self._stores.settings.sweep
        unfinished = False
        for clean in (
            partial(spools.clean, self._stores),
            partial(lost_claims.clean, self._stores),
            self._orphans.clean,
            partial(deletions.finish, self._stores),
            self._inspections.clean,
        ):
            unfinished |= succeeds(clean, time.monotonic() + sweep.interval_s / 8)
        if not unfinished:
            self._clean_at = time.monotonic() + sweep.clean_interval_s

    def _verify_identity(self) -> bool:
        self._stores.identity.check()
        return True
