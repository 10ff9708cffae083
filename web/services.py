"""What the routes work with, made once a process and after the fork."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from flask import current_app

from shared.bootstrap import open_stores
from shared.errors import DiskFull
from shared.inspections import jobs
from shared.inspections.notifications import Subscriber
from shared.ledger import audit, store_rotation
from shared.queue.wakeups import WakeupThread
from shared.queues import IMAGES
from shared.settings import Settings
from web.http.body_limits import Budget
from web.http.rate_limits import Rates
from web.inspections.response_cache import Answers

_BACKLOG_AGE_S = 1.0
_LEDGER_AGE_S = 5.0
_PENDING_AGE_S = 0.5
T = TypeVar("T")


class Services:
    """Settings, stores and bounds of one web process. Made in one thread; nothing is connected before its first use."""

    def __init__(self, settings: Settings) -> None:
        stores = open_stores(settings, app="web")
        self.settings, self.db, self.blobs, self.identity, self.wakeups = settings, stores.db, stores.blobs, stores.identity, stores.wakeups
        self._stores = stores
        self.notifications = Subscriber(settings.redis)
        self.pending: Kept[dict[str, int]] = Kept(_PENDING_AGE_S, lambda: jobs.count_pending(self.db))
        self.rates = Rates(settings)
        self.answers = Answers()
        self.budget = Budget(settings.limits.max_bytes_in_flight)
        self.waiters = threading.BoundedSemaphore(max(1, settings.web.threads // 4))
        """Threads that ``wait=`` may hold: a quarter."""
        self._beside = ThreadPoolExecutor(2 * settings.web.threads, thread_name_prefix="beside")
        self.wakeup_thread = WakeupThread(self._tell)
        self.backlog: Kept[audit.Backlog] = Kept(_BACKLOG_AGE_S, lambda: audit.backlog(self.db))
        self.ledger: Kept[dict[str, int]] = Kept(_LEDGER_AGE_S, lambda: audit.balance(self.db))

    def _tell(self, stores: set[str]) -> None:
        try:
            store_rotation.touch(self.db, stores)
        finally:
            self.wakeups[IMAGES].publish()

    def close(self) -> None:
        """End the threads and close the connections."""
        self._beside.shutdown()
        self.rates.close()
        self._stores.close()

    def beside(self, call: Callable[..., T], *args: object) -> Future[T]:
        """Begin something in a thread beside the request's own; a request has at most two at a time.

        A process that is ending takes no new work for threads, while its last requests still run: then it is done here.
        """
        try:
            return self._beside.submit(call, *args)
        except RuntimeError:
            done: Future[T] = Future()
            try:
                done.set_result(call(*args))
            except Exception as error:  # noqa: BLE001 -- as a thread's would be: raised by result()
                done.set_exception(error)
            return done

    def check_room(self, coming: int) -> None:
        """Refuse an upload that would leave too little room for what was accepted before it, or for which the store is not the right one.

        :param coming: bytes of the body.
        :raises DiskFull: 507.
        :raises StoreAway: 503.
        """
        self.identity.check()
        blobs = self.settings.blobs
        needed = blobs.min_free_bytes + coming + int(blobs.growth * (self.backlog.get().bytes + coming))
        free = self.blobs.free_bytes()
        if free < needed:
            raise DiskFull(
                "There is too little room on the disk for more images.",
                retry_after=30,
                extra={"limit": "free_bytes", "value": needed, "free": free},
            )


class Kept(Generic[T]):
    """An answer that is expensive to find, found at most once in a while however often it is asked for."""

    def __init__(self, seconds: float, find: Callable[[], T]) -> None:
        """Keep each answer for ``seconds``."""
        self._seconds, self._find = seconds, find
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._until = 0.0

    def get(self) -> T:
        """Give it. While one caller looks for a new one, the others get the last."""
        answer = self._answer
        if answer is not None and time.monotonic() < self._until:
            return answer
        if not self._lock.acquire(blocking=answer is None) and answer is not None:
            return answer
        try:
            if self._answer is None or time.monotonic() >= self._until:
                self._answer = self._find()
                self._until = time.monotonic() + self._seconds
            return self._answer
        finally:
            self._lock.release()


def current_services() -> Services:
    """Give the services of the app that handles this request."""
    found = current_app.extensions["shelfsight"]
    assert isinstance(found, Services)  # noqa: S101 -- set in create_app
    return found
