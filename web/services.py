"""The services that routes use: database, blob store, threads and limits.

Each web process creates its own services after the fork.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from flask import current_app

from shared.accounts import inherited_signing_keys
from shared.accounts.audit_log import AuditLog
from shared.accounts.authenticator import Authenticator
from shared.accounts.csrf_tokens import CsrfTokens
from shared.accounts.key_usage import KeyUsage
from shared.accounts.passwords import PasswordHasher
from shared.accounts.signed_urls import UrlSigner
from shared.accounts.tokens import TokenSigner
from shared.bootstrap import open_stores
from shared.errors import DiskFull
from shared.inspections import jobs
from shared.inspections.notifications import Subscriber
from shared.inspections.requesters import Requesters
from shared.jobs import records
from shared.ledger import audit, turns, waits
from shared.ledger.turns import Turn
from shared.queue.wakeups import WakeupThread
from shared.queues import IMAGES
from shared.settings import Settings
from web.cached_value import CachedValue, RefreshedValue
from web.http.body_limits import BodyBudget
from web.http.rate_limits import RateLimiter
from web.http.response_cache import ResponseCache
from web.http.sign_in_throttle import SignInThrottle
from web.http.slow_clients import SLOW_CLIENTS
from web.queue_age import QueueAge

_BACKLOG_MIN_PAUSE_S: Final = 2.0
_PENDING_MAX_AGE_S: Final = 0.5
_CALLS_PER_REQUEST: Final = 3
_MAX_PARALLEL_HASHES: Final = 2
"""A hash of a password takes 64 MiB of memory, and up to four cores."""
_MAX_HASH_WAIT_S: Final = 5.0
T = TypeVar("T")


class BacklogMeter:
    """Measures the backlog in the background, and adds the bytes that this process has accepted since. Thread-safe."""

    def __init__(self, measure: Callable[[], audit.Backlog], min_pause_s: float = _BACKLOG_MIN_PAUSE_S) -> None:
        self._lock = threading.Lock()
        self._accepted_bytes = 0
        self._measured = RefreshedValue(min_pause_s, lambda: (self._accepted_bytes, measure()))
        self.age_s, self.close = self._measured.age_s, self._measured.close

    def get(self) -> audit.Backlog:
        """Return the latest measurement. It raises a domain error only if no measurement has succeeded yet."""
        return self._measured.get()[1]

    def unprocessed_bytes(self) -> int:
        """Return the bytes of all images in open batches, at least of those that this process has accepted.

        A batch that was accepted during the latest measurement may be counted twice until the next one.
        """
        accepted_before, backlog = self._measured.get()
        return backlog.bytes + self._accepted_bytes - accepted_before

    def add(self, accepted_bytes: int) -> None:
        """Record that a batch with so many bytes was accepted."""
        with self._lock:
            self._accepted_bytes += accepted_bytes


class Services:
    """The settings, the database, the blob store and the limits of one web process.

    The constructor is not thread-safe. Each connection is opened when it is first used.
    """

    def __init__(self, settings: Settings) -> None:
        self._stores = stores = open_stores(settings, app="web")
        self.settings, self.db, self.blobs = settings, stores.db, stores.blobs
        self.identity, self.wakeups = stores.identity, stores.wakeups
        self.audit_log = AuditLog(self.db, write_deadline_s=settings.mongo.commit_deadline_s)
        self.signing_keys = signing_keys = inherited_signing_keys.get(settings.access)
        self.token_signer = TokenSigner(signing_keys)
        self.csrf_tokens = CsrfTokens(signing_keys)
        self.url_signer = UrlSigner(signing_keys, settings.access.signed_url_lifetime_s) if settings.access.is_on else None
        """Signs the URLs of files. None while access is open, because they need no signature then."""
        self.authenticator = Authenticator(self.db, self.token_signer, settings.mongo.commit_deadline_s)
        self.password_hasher = PasswordHasher(_MAX_PARALLEL_HASHES, _MAX_HASH_WAIT_S, max_waiting=max(1, settings.web.threads // 4))
        self.key_usage = KeyUsage(self.db)
        self.rate_limiter = RateLimiter(settings.redis)
        self.sign_in_throttle = SignInThrottle(self.rate_limiter)
        self.requesters = Requesters(self.db)
        self.notifications = Subscriber(settings.redis)
        self.response_cache = ResponseCache()
        self.body_budget = BodyBudget(settings.limits.max_bytes_in_flight, SLOW_CLIENTS.end_slowest_body)
        self.wait_slots = threading.BoundedSemaphore(max(1, settings.web.threads // 4))
        """Acquired by each thread that waits because of ``wait=``. At most a quarter of the threads can wait."""
        self._executor = ThreadPoolExecutor(_CALLS_PER_REQUEST * settings.web.threads, thread_name_prefix="services")
        self.wakeup_thread = WakeupThread(self._publish_wakeup)
        self.backlog = BacklogMeter(lambda: audit.backlog(self.db))
        self.queue_age = QueueAge(settings.limits.max_queue_age_s, lambda: waits.find_wait(self.db))
        self.pending_inspections = CachedValue(_PENDING_MAX_AGE_S, lambda: jobs.count_pending(self.db))
        self.pending_jobs = CachedValue(_PENDING_MAX_AGE_S, lambda: records.read_pending(self.db))

    def _publish_wakeup(self, new: set[Turn]) -> None:
        try:
            turns.touch(self.db, new)
        finally:
            self.wakeups[IMAGES].publish()

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.backlog.close()
        self.queue_age.close()
        self._executor.shutdown()
        self.wakeup_thread.close()
        self.notifications.close()
        self.rate_limiter.close()
        self.audit_log.close()
        self._stores.close()

    def submit(self, call: Callable[..., T], *args: object) -> Future[T]:
        """Run ``call`` in another thread.

        A request must not have more than ``_CALLS_PER_REQUEST`` such calls at the same time, because the executor has only
        so many threads for each thread that handles requests.

        When the interpreter exits, the executor accepts no more calls although the last requests are still running. In
        this case, ``call`` runs in the current thread.
        """
        try:
            return self._executor.submit(call, *args)
        except RuntimeError:
            future: Future[T] = Future()
            try:
                future.set_result(call(*args))
            except Exception as error:  # noqa: BLE001 -- result() raises it, as it does for errors in executor threads
                future.set_exception(error)
            return future

    def check_free_space(self, upload_bytes: int) -> None:
        """Refuse an upload if there is too little disk space, or if the blob store does not belong to this installation.

        The free space must be sufficient for the upload and for all images that were accepted but not yet processed.

        :param upload_bytes: the size of the body of the upload.
        :raises DiskFull: when there is too little free space (507).
        :raises StoreAway: when the blob store is missing or belongs to another installation, or when the database has
            not responded since the process started (503).
        """
        self.identity.check()
        blobs = self.settings.blobs
        needed = blobs.min_free_bytes + upload_bytes + int(blobs.growth * (self.backlog.unprocessed_bytes() + upload_bytes))
        free = self.blobs.free_bytes()
        if free < needed:
            raise DiskFull(
                "There is too little free disk space for more images; retry later.",
                retry_after=30,
                extra={"limit": "free_bytes", "value": needed, "free": free},
            )


def current_services() -> Services:
    """Return the services of the application that handles the current request."""
    services = current_app.extensions["shelfsight"]
    assert isinstance(services, Services)  # noqa: S101 -- create_app always sets this extension
    return services
