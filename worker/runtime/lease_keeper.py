"""A thread that renews the leases that a process holds. It renews them three times per lease duration."""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from shared.errors import ShelfsightError
from shared.queue.leases import Lease


@dataclass(slots=True)
class _Item:
    deadline: float
    """Time at which renewal stops, in ``time.monotonic`` seconds."""
    lost: bool = False


class LeaseKeeper:
    """Holds leases and renews them, from the call of ``hold`` until the call of ``drop``. It is thread-safe."""

    def __init__(
        self,
        renew: Callable[[Sequence[Lease]], Collection[Lease]],
        lease_s: float,
        on_overrun: Callable[[Collection[Lease]], None] | None = None,
        *,
        set_busy: Callable[[bool], object] = lambda _: None,
    ) -> None:
        """Start the thread that renews the leases. It runs until ``stop`` is called or the process ends.

        :param renew: extends leases by ``lease_s`` seconds, and returns the leases that are still held. It may raise
            ``ShelfsightError`` if the database does not respond. The leases then still count as held. This is safe,
            because the fence prevents a worker that has lost a lease from storing a result.
        :param on_overrun: called in the thread that renews the leases, before a renewal, with the leases that were not
            dropped within their time limits, if there are any.
        :param set_busy: called after each change with whether any lease is held. It must be brief.
        """
        self._set_busy = set_busy
        self._renew, self._lease_s, self._on_overrun = renew, lease_s, on_overrun
        self._items: dict[Lease, _Item] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def hold(self, leases: Iterable[Lease], time_limit_s: float) -> None:
        """Start to renew these leases, and renew them for at most ``time_limit_s`` seconds."""
        added = {lease: _Item(time.monotonic() + time_limit_s) for lease in leases}
        ids = {lease.id for lease in added}
        with self._lock:
            for lease, item in self._items.items():
                if lease.id in ids:  # the document was claimed again under a higher fence
                    item.lost = True
            self._items |= added
            self._set_busy(bool(self._items))

    def limit(self, lease: Lease, time_limit_s: float | None) -> None:
        """Replace the time limit of a lease, if it has not been dropped.

        :param time_limit_s: seconds from now. None means that the lease is renewed until it is dropped or limited
            again.
        """
        with self._lock:
            item = self._items.get(lease)
            if item is not None:
                item.deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s

    def drop(self, leases: Iterable[Lease]) -> None:
        """Stop renewing these leases. From now on, ``holds`` returns False for them."""
        with self._lock:
            for lease in leases:
                self._items.pop(lease, None)
            self._set_busy(bool(self._items))

    def holds(self, lease: Lease) -> bool:
        """Return whether a lease was passed to ``hold`` and has since been neither dropped nor found to be lost."""
        with self._lock:
            item = self._items.get(lease)
            return item is not None and not item.lost

    def leases(self) -> list[Lease]:
        """Return all leases that were passed to ``hold`` but not yet to ``drop``, including lost leases."""
        with self._lock:
            return list(self._items)

    def stop(self) -> None:
        """Stop the thread, which ends all renewals."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._lease_s / 3):
            now = time.monotonic()
            with self._lock:
                overrun = [lease for lease, item in self._items.items() if item.deadline < now]
                due = [lease for lease, item in self._items.items() if item.deadline > now and not item.lost]
            if overrun and self._on_overrun is not None:
                self._on_overrun(overrun)
            if not due:
                continue
            try:
                kept = self._renew(due)
            except ShelfsightError:
                continue
            with self._lock:
                for lease in due:
                    if lease not in kept and lease in self._items:
                        self._items[lease].lost = True
