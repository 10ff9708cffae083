"""Publishes wakeups: Celery messages without content, each of which starts a task on a worker.

A wakeup only reports that work exists. It does not identify the work, so no further wakeup is published while enough of
them wait in the queue.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared import settings
from shared.queue.breaker import Breaker
from shared.queue.redis_client import connect_redis
from shared.queues import WorkQueue

_TIMEOUT_S: Final = 1.0
_ENOUGH_WAKEUPS: Final = 8
_MAX_BACKLOG: Final = 1000
_INTERVAL_S: Final = 0.1
_log = logging.getLogger("shelfsight.error")
T = TypeVar("T")


class WakeupPublisher:
    """Publishes wakeups to one work queue.

    Its methods never raise an exception, and they wait for Redis for little more than a second. After a failure, they
    do not call Redis for a while; see ``shared.queue.breaker``. ``publish`` first counts the waiting wakeups, because
    counting them takes only a tenth of the time that publishing a wakeup takes.
    """

    def __init__(self, redis: settings.Redis, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._app = Celery("shelfsight-wakeups", broker=redis.url)
        self._app.conf.update(
            task_default_queue=work_queue.name,
            task_serializer="json",
            task_ignore_result=True,
            broker_transport_options={
                "socket_timeout": _TIMEOUT_S,
                "socket_connect_timeout": _TIMEOUT_S,
                "max_retries": 1,
            },
            broker_pool_limit=4,
        )
        self._redis = connect_redis(redis, timeout_s=_TIMEOUT_S)
        self._breaker = Breaker()

    def publish(self) -> bool:
        """Publish a wakeup, unless enough wakeups wait in the queue.

        :returns: False if Redis did not respond or did not accept the wakeup; otherwise, True. After a failure, the
            sweep publishes a wakeup later.
        """
        waiting = self.count_waiting()
        if waiting is None or waiting >= _ENOUGH_WAKEUPS:
            return waiting is not None
        return self._guarded(self._send) is not None

    def count_waiting(self) -> int | None:
        """Return the number of wakeups that no worker has received yet, or None if Redis does not respond."""
        return self._guarded(self._count)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()
        self._app.close()

    def _send(self) -> int:
        self._app.send_task(self._work_queue.task, queue=self._work_queue.name, retry=False, ignore_result=True)
        return 1

    def _count(self) -> int:
        count: Any = self._redis.llen(self._work_queue.name)
        return int(count)

    def _guarded(self, call: Callable[[], int]) -> int | None:
        if not self._breaker.admits():
            return None
        try:
            result = call()
        except (OperationalError, RedisError, OSError) as error:
            self._breaker.trip()
            _log.warning("cannot publish or count wakeups in redis: %s", type(error).__name__)
            return None
        self._breaker.reset()
        return result


class WakeupThread(Generic[T]):
    """A thread that announces new work, so that no request waits for Redis.

    An announcement takes 1.5 ms of processor time, in this process, MongoDB and Redis. So the thread combines all calls of
    ``notify`` within an interval into one announcement. The first announcement after a pause is made at once.
    """

    def __init__(self, announce: Callable[[set[T]], object], interval_s: float = _INTERVAL_S) -> None:
        """Start the thread.

        :param announce: function that is called with everything of which ``notify`` was called since the last announcement.
            It can raise any exception; in this case, the sweep finds the waiting work.
        :param interval_s: minimum number of seconds between two announcements.
        """
        self._announce, self._interval_s = announce, interval_s
        self._backlog: queue.Queue[set[T]] = queue.Queue(_MAX_BACKLOG)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
        self._thread.start()

    def notify(self, new: set[T]) -> None:
        """Announce soon that there is new work, which belongs to what ``new`` contains.

        If too many calls are waiting for this thread, the call has no effect, and the sweep finds the work.
        """
        with suppress(queue.Full):
            self._backlog.put_nowait(new)

    def close(self) -> None:
        """End the thread, after it has announced the new work of which it was notified before this call."""
        self._closed.set()
        self._backlog.put(set())  # the thread may be waiting for a call of notify
        self._thread.join()

    def _run(self) -> None:
        next_at = 0.0
        while not (self._closed.is_set() and self._backlog.empty()):
            new = set(self._backlog.get())
            self._closed.wait(max(0.0, next_at - time.monotonic()))
            next_at = time.monotonic() + self._interval_s
            for _ in range(self._backlog.qsize()):
                new |= self._backlog.get()
            if not new:  # close() puts an empty set
                continue
            try:
                self._announce(new)
            except Exception as error:  # noqa: BLE001 -- no failed announcement may end the thread
                _log.warning("cannot announce new work: %s", type(error).__name__)
