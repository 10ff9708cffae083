"""Word that an inspection has ended, through Redis, so that nobody need ask the database again and again.

Word may be lost, and Redis may be away: who waits looks for itself as well, now and then.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from shared.settings import Settings

_CHANNEL: Final = "shelfsight:inspected"
_TIMEOUT_S: Final = 1.0
_LISTEN_S: Final = 5.0
_REST_S: Final = 1.0
_log = logging.getLogger("shelfsight.error")


class Teller:
    """Tells. Never raises; while Redis is away it is asked once a second at most."""

    def __init__(self, settings: Settings) -> None:
        """Keep where to tell; nothing is connected yet."""
        self._redis = _connect(settings)
        self._rests_until = 0.0

    def tell(self, job_id: str) -> None:
        """Say that an inspection has ended."""
        if time.monotonic() < self._rests_until:
            return
        try:
            self._redis.publish(_CHANNEL, job_id)
        except (RedisError, OSError) as error:
            self._rests_until = time.monotonic() + _REST_S
            _log.warning("redis takes no news: %s", type(error).__name__)


class Listener:
    """Listens for all threads of a process, with one of its own, which begins with the first who waits and ends with the process."""

    def __init__(self, settings: Settings) -> None:
        """Keep where to listen; nothing is connected yet."""
        self._settings = settings
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def expect(self, job_id: str) -> Iterator[threading.Event]:
        """Give an event that is set when an inspection has ended; what ended before is not told again."""
        heard = threading.Event()
        with self._lock:
            self._waiting.setdefault(job_id, set()).add(heard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="news", daemon=True)
                self._thread.start()
        try:
            yield heard
        finally:
            with self._lock:
                others = self._waiting[job_id]
                others.discard(heard)
                if not others:
                    del self._waiting[job_id]

    def _listen(self) -> None:
        while True:
            try:
                with _connect(self._settings).pubsub(ignore_subscribe_messages=True) as news:  # type: ignore[no-untyped-call]
                    news.subscribe(_CHANNEL)
                    while True:
                        self._hear(news.get_message(timeout=_LISTEN_S))
            except Exception as error:  # noqa: BLE001 -- this thread must outlive whatever a connection meets
                _log.warning("no news from redis: %s", type(error).__name__)
                time.sleep(_REST_S)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        with self._lock:
            for heard in self._waiting.get(message["data"].decode(), ()):
                heard.set()


def _connect(settings: Settings) -> "redis.Redis":
    return redis.Redis.from_url(settings.redis.url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=None)
