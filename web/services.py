"""The services that routes use: stores, threads and limits, created once per process and after the fork."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from flask import current_app

from shared.bootstrap import open_stores
from shared.errors import DiskFull
from shared.inspections import jobs
from shared.inspections.notifications import Subscriber
from shared.ledger import audit, store_rotation
from shared.queue.wakeups import WakeupThread
from shared.queues import IMAGES
from shared.settings import Settings
from web.cached_value import CachedValue
from web.http.body_limits import BodyBudget
from web.http.rate_limits import RateLimits
from web.http.response_cache import ResponseCache

_BACKLOG_MAX_AGE_S: Final = 1.0
_LEDGER_MAX_AGE_S: Final = 5.0
_PENDING_MAX_AGE_S: Final = 0.5
T = TypeVar("T")


class Services:
    """Settings, stores and limits of one web process.

    Create them in one thread. No connection is opened before its first use.
    """

    def __init__(self, settings: Settings) -> None:
        self._stores = stores = open_stores(settings, app="web")
        self.settings, self.db, self.blobs = settings, stores.db, stores.blobs
        self.identity, self.wakeups = stores.identity, stores.wakeups
        self.notifications = Subscriber(settings.redis)
        self.rate_limits = RateLimits(settings)
        self.response_cache = ResponseCache()
        self.body_budget = BodyBudget(settings.limits.max_bytes_in_flight)
        self.wait_slots = threading.BoundedSemaphore(max(1, settings.web.threads // 4))
        """Held by each thread that waits for ``wait=``: at most a quarter of the threads."""
        self._executor = ThreadPoolExecutor(2 * settings.web.threads, thread_name_prefix="services")
        self.wakeup_thread = WakeupThread(self._publish_wakeup)
        self.backlog = CachedValue(_BACKLOG_MAX_AGE_S, lambda: audit.backlog(self.db))
        self.ledger_balance = CachedValue(_LEDGER_MAX_AGE_S, lambda: audit.balance(self.db))
        self.pending_inspections = CachedValue(_PENDING_MAX_AGE_S, lambda: jobs.count_pending(self.db))

    def _publish_wakeup(self, stores: set[str]) -> None:
        try:
            store_rotation.touch(self.db, stores)
        finally:
            self.wakeups[IMAGES].publish()

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self._executor.shutdown()
        self.rate_limits.close()
        self._stores.close()

    def submit(self, call: Callable[..., T], *args: object) -> Future[T]:
        """Run a call in another thread; a request has at most two at a time.

        When the interpreter exits, executors accept no more calls while the last requests still run: the call then runs
        in this thread.
        """
        try:
            return self._executor.submit(call, *args)
        except RuntimeError:
            future: Future[T] = Future()
            try:
                future.set_result(call(*args))
            except Exception as error:  # noqa: BLE001 -- raised by result(), as an error of the executor's thread is
                future.set_exception(error)
            return future

    def check_free_space(self, upload_bytes: int) -> None:
        """Refuse an upload that would leave too little space for the accepted ones, or that the wrong blob store would get.

        :param upload_bytes: size of the body.
        :raises DiskFull: 507.
        :raises StoreAway: 503.
        """
        self.identity.check()
        blobs = self.settings.blobs
        needed = blobs.min_free_bytes + upload_bytes + int(blobs.growth * (self.backlog.get().bytes + upload_bytes))
        free = self.blobs.free_bytes()
        if free < needed:
            raise DiskFull(
                "The disk has too little free space for more images; retry later.",
                retry_after=30,
                extra={"limit": "free_bytes", "value": needed, "free": free},
            )


def current_services() -> Services:
    """Return the services of the app that handles this request."""
    services = current_app.extensions["shelfsight"]
    assert isinstance(services, Services)  # noqa: S101 -- set in create_app
    return services
