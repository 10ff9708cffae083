"""A thread that renews the leases of what a process holds, at a third of their length."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from shared.errors import ShelfsightError
from shared.queue.leases import Lease


@dataclass(slots=True)
class _Item:
    deadline: float
    """Monotonic seconds at which renewal stops."""
    lost: bool = False


class LeaseKeeper:
    """The leases that this process holds, from ``hold`` until ``drop``. It may be used by several threads."""

    def __init__(
        self,
        renew: Callable[[Sequence[Lease]], Collection[Lease]],
        lease_s: float,
        on_overrun: Callable[[], None] | None = None,
    ) -> None:
        """Start the thread; it ends with ``stop`` or with the process.

        :param renew: extends leases by ``lease_s`` seconds and returns those that are still held. It may raise
            ``ShelfsightError`` when the database does not answer: the leases then count as held, and the fence decides
            when a result is stored.
        :param on_overrun: called in the thread, before a renewal, when an item was not dropped within its time limit.
        """
        self._renew, self._lease_s, self._on_overrun = renew, lease_s, on_overrun
        self._items: dict[Lease, _Item] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def hold(self, leases: Iterable[Lease], time_limit_s: float) -> None:
        """Renew these leases from now on, for ``time_limit_s`` seconds at most."""
        added = {lease: _Item(time.monotonic() + time_limit_s) for lease in leases}
        ids = {lease.id for lease in added}
        with self._lock:
            for lease, item in self._items.items():
                if lease.id in ids:  # claimed again under a higher fence
                    item.lost = True
            self._items |= added

    def drop(self, leases: Iterable[Lease]) -> None:
        """Forget these leases."""
        with self._lock:
            for lease in leases:
                self._items.pop(lease, None)

    def holds(self, lease: Lease) -> bool:
        """Whether a lease is held and was not lost as of the last renewal."""
        with self._lock:
            item = self._items.get(lease)
            return item is not None and not item.lost

    def leases(self) -> list[Lease]:
        """Return all leases from ``hold`` that were not dropped, including lost ones."""
        with self._lock:
            return list(self._items)

    def stop(self) -> None:
        """Stop renewing."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._lease_s / 3):
            now = time.monotonic()
            with self._lock:
                overrun = any(item.deadline < now for item in self._items.values())
                due = [lease for lease, item in self._items.items() if item.deadline > now and not item.lost]
            if overrun and self._on_overrun is not None:
                self._on_overrun()
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
