"""Publishing wakeups: Celery messages without content that start a task on a worker.

A wakeup says that there is work, not which. So while enough of them wait in the queue, another one adds nothing.
"""

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

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
_log = logging.getLogger("shelfsight.error")


class WakeupPublisher:
    """Publishes wakeups to one queue. It never raises, and waits little more than a second; after a failure its breaker is open.

    Counting the waiting wakeups costs a tenth of publishing one.
    """

    def __init__(self, redis: settings.Redis, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._app = Celery("shelfsight-bell", broker=redis.url)
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
        """Publish a wakeup unless enough of them wait.

        :returns: False when Redis did not accept it; the sweep publishes one later.
        """
        waiting = self.count_waiting()
        if waiting is None or waiting >= _ENOUGH_WAKEUPS:
            return waiting is not None
        return self._guarded(self._send) is not None

    def count_waiting(self) -> int | None:
        """Count the wakeups that no worker has received yet; None when Redis does not answer."""
        return self._guarded(self._count)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._app.close()

    def _send(self) -> int:
        self._app.send_task(self._work_queue.task, queue=self._work_queue.name, retry=False, ignore_result=True)
        return 1

    def _count(self) -> int:
        count: Any = self._redis.llen(self._work_queue.name)
        return int(count)

    def _guarded(self, call: Callable[[], int]) -> int | None:
        if self._breaker.is_open:
            return None
        try:
            return call()
        except (OperationalError, RedisError, OSError) as error:
            self._breaker.trip()
            _log.warning("redis does not accept wakeups: %s", type(error).__name__)
            return None


class WakeupThread:
    """A thread that announces new work, so that no request waits for Redis. Several notifications may become one announcement."""

    def __init__(self, announce: Callable[[set[str]], object]) -> None:
        """Start the thread; it ends with the process.

        :param announce: called with names of stores that have new work. It may fail: the sweep finds waiting work.
        """
        self._announce = announce
        self._backlog: queue.Queue[set[str]] = queue.Queue(_MAX_BACKLOG)
        threading.Thread(target=self._run, name="wakeups", daemon=True).start()

    def notify(self, stores: set[str]) -> None:
        """Announce these stores soon. While the backlog is full the call has no effect: the sweep finds waiting work."""
        with suppress(queue.Full):
            self._backlog.put_nowait(stores)

    def _run(self) -> None:
        while True:
            stores = self._backlog.get()
            for _ in range(self._backlog.qsize()):
                stores |= self._backlog.get()
            try:
                self._announce(stores)
            except Exception as error:  # noqa: BLE001 -- the thread must survive any failure of an announcement
                _log.warning("wakeup not published: %s", type(error).__name__)
