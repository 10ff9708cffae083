"""What the routes work with, made once a process and after the fork."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from flask import current_app

from shared.blobs import BlobStore, LocalBlobs
from shared.broker import Bell, Ringer
from shared.errors import DiskFull
from shared.ledger import audit, turns
from shared.mongo import Db, connect
from shared.settings import Settings
from web.intake import Budget

_BACKLOG_AGE_S = 1.0
_LEDGER_AGE_S = 5.0


@dataclass
class Services:
    """Settings, stores and bounds of one web process."""

    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _backlog_lock: threading.Lock = field(default_factory=threading.Lock)
    _backlog: tuple[float, int] = (0.0, 0)
    _ledger: tuple[float, dict[str, int], audit.Backlog] | None = None

    @cached_property
    def db(self) -> Db:
        """The database."""
        return connect(self.settings.mongo, app="web")

    @cached_property
    def blobs(self) -> BlobStore:
        """The blob store."""
        return LocalBlobs(self.settings.blobs.root)

    @cached_property
    def bell(self) -> Bell:
        """The doorbell, for counting what waits."""
        return Bell(self.settings)

    @cached_property
    def ringer(self) -> Ringer:
        """The doorbell, for ringing without waiting."""
        bell = Bell(self.settings)

        def tell(stores: set[str]) -> None:
            try:
                turns.touch(self.db, stores)
            finally:
                bell.ring()

        return Ringer(tell)

    @cached_property
    def writers(self) -> ThreadPoolExecutor:
        """Threads that write and hash beside a request's own; no request holds more than two."""
        return ThreadPoolExecutor(2 * self.settings.web.threads, thread_name_prefix="write")

    @cached_property
    def budget(self) -> Budget:
        """Bytes of uploads in flight."""
        return Budget(self.settings.limits.max_bytes_in_flight)

    @cached_property
    def waiters(self) -> threading.BoundedSemaphore:
        """Threads that ``wait=`` may hold: a quarter."""
        return threading.BoundedSemaphore(max(1, self.settings.web.threads // 4))

    def close(self) -> None:
        """End the threads and close the connections that were made."""
        if "writers" in self.__dict__:
            self.writers.shutdown()
        if "db" in self.__dict__:
            self.db.client.close()
        if "bell" in self.__dict__:
            self.bell.close()

    def ledger(self) -> tuple[dict[str, int], audit.Backlog]:
        """Give the ledger's balance and the backlog, counted at most every few seconds however often they are asked for."""
        with self._lock:
            if self._ledger is None or time.monotonic() - self._ledger[0] > _LEDGER_AGE_S:
                self._ledger = (time.monotonic(), audit.balance(self.db), audit.backlog(self.db))
            return self._ledger[1], self._ledger[2]

    def check_room(self, coming: int) -> None:
        """Refuse an upload that would leave too little room for what was accepted before it.

        :param coming: bytes of the body.
        :raises DiskFull: 507.
        """
        blobs = self.settings.blobs
        needed = blobs.min_free_bytes + coming + int(blobs.growth * (self._backlog_bytes() + coming))
        free = self.blobs.free_bytes()
        if free < needed:
            raise DiskFull(
                "There is too little room on the disk for more images.",
                retry_after=30,
                extra={"limit": "free_bytes", "value": needed, "free": free},
            )

    def _backlog_bytes(self) -> int:
        at, known = self._backlog
        if time.monotonic() - at > _BACKLOG_AGE_S and self._backlog_lock.acquire(blocking=False):
            try:
                known = audit.backlog(self.db).bytes
                self._backlog = (time.monotonic(), known)
            finally:
                self._backlog_lock.release()
        return known


def services() -> Services:
    """Give the services of the app that handles this request."""
    found = current_app.extensions["shelfsight"]
    assert isinstance(found, Services)  # noqa: S101 -- set in create_app
    return found
