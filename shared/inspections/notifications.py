"""Notifies waiting requests through Redis that an inspection has ended, so that they need not poll the database often.

A notification can be lost, and Redis can be unavailable. Therefore, a waiting request also polls the database at longer
intervals.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from shared import settings
from shared.queue.breaker import Breaker
from shared.queue.redis_client import connect_redis

_CHANNEL: Final = "shelfsight:inspected"
_TIMEOUT_S: Final = 1.0
_POLL_S: Final = 1.0
_RECONNECT_S: Final = 1.0
_log = logging.getLogger("shelfsight.error")


class Publisher:
    """Publishes notifications. Its methods never raise exceptions.

    After a failure, no notifications are published for a while; see ``shared.queue.breaker``.
    """

    def __init__(self, redis: settings.Redis) -> None:
        self._redis = connect_redis(redis, timeout_s=_TIMEOUT_S)
        self._breaker = Breaker()

    def publish(self, job_id: str) -> None:
        """Publish that an inspection has ended."""
        if not self._breaker.admits():
            return
        try:
            self._redis.publish(_CHANNEL, job_id)
        except (RedisError, OSError) as error:
            self._breaker.trip()
            _log.warning("cannot publish a notification to redis: %s", type(error).__name__)
        else:
            self._breaker.reset()


class Subscriber:
    """Receives notifications for all threads of a process.

    It has one thread, which starts with the first call of ``expect``.
    """

    def __init__(self, redis: settings.Redis) -> None:
        self._redis_settings = redis
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def expect(self, job_id: str) -> Iterator[threading.Event]:
        """Yield an event that is set when an inspection ends.

        The event is not set if the inspection ended before this call. Therefore, the caller must read the inspection
        from the database after this call and before it waits for the event.
        """
        ended = threading.Event()
        with self._lock:
            self._waiting.setdefault(job_id, set()).add(ended)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="notifications", daemon=True)
                self._thread.start()
        try:
            yield ended
        finally:
            with self._lock:
                events = self._waiting[job_id]
                events.discard(ended)
                if not events:
                    del self._waiting[job_id]

    def close(self) -> None:
        """End the thread within about a second, and log nothing more. No event is set after this call."""
        self._closed.set()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._receive()
            except Exception as error:  # noqa: BLE001 -- no connection failure may end the thread
                if self._closed.is_set():
                    return
                _log.warning("cannot receive notifications from redis: %s", type(error).__name__)
                self._closed.wait(_RECONNECT_S)  # Redis does not announce that it is back

    def _receive(self) -> None:
        with (
            connect_redis(self._redis_settings, timeout_s=_TIMEOUT_S) as client,
            client.pubsub(ignore_subscribe_messages=True) as subscription,
        ):
            subscription.subscribe(_CHANNEL)
            while not self._closed.is_set():
                self._dispatch(subscription.get_message(timeout=_POLL_S))

    def _dispatch(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        with self._lock:
            for ended in self._waiting.get(message["data"].decode(), ()):
                ended.set()
