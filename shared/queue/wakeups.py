"""The doorbell: Celery on Redis, set up so that a lost or frozen Redis costs a delay and nothing else."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.media_types import Door
from shared.settings import Settings

_PUBLISH_TIMEOUT_S: Final = 1.0
_ENOUGH_BELLS: Final = 8
_BREAKER_S: Final = 1.0
_UNTOLD: Final = 1000
_log = logging.getLogger("shelfsight.error")


def make_celery(settings: Settings, door: Door) -> Celery:
    """Set Celery up for the workers behind a door. Nothing is connected before the first use."""
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # a warm stop gives images back instead of finishing everything
    app = Celery("shelfsight", broker=settings.redis.url)
    hard = settings.worker.hard_limit_s
    app.conf.update(
        task_default_queue=door.queue,
        task_serializer="json",
        accept_content=["json"],
        # Results live in MongoDB. A result back end would cost 1.7-2.8 times the time of a task.
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # Acknowledged late, but not put back when a worker dies: that makes a loop of crashes, and the sweep rings anyway.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_time_limit=hard,
        task_soft_time_limit=settings.worker.soft_limit_s,
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        worker_pool_start_method="spawn",  # CUDA does not survive a fork
        worker_concurrency=settings.worker.processes,
        worker_max_memory_per_child=settings.worker.most_memory_bytes // 1024,
        worker_proc_alive_timeout=120,  # the model loads in the child
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,  # in a pool child our handler's stream would be Celery's, which drops what loggers write
        worker_soft_shutdown_timeout=10.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # else a full Redis ends the worker
        broker_transport_options={
            "visibility_timeout": hard * 2,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10.0,
            "socket_connect_timeout": 2.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "retry_on_timeout": True,
        },
    )
    return app


class Bell:
    """Rings for workers. Never raises and never takes much longer than a second; after a failure it rests for a while.

    A bell says that there is work, not which: while enough of them wait for a worker another would say nothing new, and a
    look at the queue costs a tenth of a message.
    """

    def __init__(self, settings: Settings, door: Door) -> None:
        """Keep where to ring; the connections of this object have short time limits of their own."""
        self._door = door
        self._app = Celery("shelfsight-bell", broker=settings.redis.url)
        self._app.conf.update(
            task_default_queue=door.queue,
            task_serializer="json",
            task_ignore_result=True,
            broker_transport_options={
                "socket_timeout": _PUBLISH_TIMEOUT_S,
                "socket_connect_timeout": _PUBLISH_TIMEOUT_S,
                "max_retries": 1,
            },
            broker_pool_limit=4,
        )
        self._queue = redis.Redis.from_url(
            settings.redis.url, socket_timeout=_PUBLISH_TIMEOUT_S, socket_connect_timeout=_PUBLISH_TIMEOUT_S, retry=None
        )
        self._rests_until = 0.0

    def ring(self) -> bool:
        """Say that there is work. False when Redis did not take it: the sweep rings later."""
        waiting = self.waiting()
        if waiting is None or waiting >= _ENOUGH_BELLS:
            return waiting is not None
        return self._guarded(self._send) is not None

    def waiting(self) -> int | None:
        """Count the bells that no worker has taken yet; None when Redis does not answer."""
        return self._guarded(self._count)

    def close(self) -> None:
        """Close the connections."""
        self._queue.close()
        self._app.close()

    def _send(self) -> int:
        self._app.send_task(self._door.task, queue=self._door.queue, retry=False, ignore_result=True)
        return 1

    def _count(self) -> int:
        count: Any = self._queue.llen(self._door.queue)
        return int(count)

    def _guarded(self, call: Any) -> int | None:
        if time.monotonic() < self._rests_until:
            return None
        try:
            return int(call())
        except (OperationalError, RedisError, OSError) as error:
            self._rests_until = time.monotonic() + _BREAKER_S
            _log.warning("redis does not take bells: %s", type(error).__name__)
            return None


class Ringer:
    """Tells from a thread of its own, so that no request waits, whose work has come. Many calls at once may become one."""

    def __init__(self, tell: Callable[[set[str]], object]) -> None:
        """Start the thread; it ends with the process.

        :param tell: gets the names of stores. It may fail: the sweep finds what waits.
        """
        self._tell = tell
        self._waiting: queue.Queue[set[str]] = queue.Queue(_UNTOLD)
        threading.Thread(target=self._run, name="ringer", daemon=True).start()

    def ring(self, stores: set[str]) -> None:
        """Ring soon. While nothing can be told for long, later calls are dropped: the sweep finds what waits."""
        with suppress(queue.Full):
            self._waiting.put_nowait(stores)

    def _run(self) -> None:
        while True:
            stores = self._waiting.get()
            for _ in range(self._waiting.qsize()):
                stores |= self._waiting.get()
            try:
                self._tell(stores)
            except Exception as error:  # noqa: BLE001 -- this thread must outlive whatever a ring meets
                _log.warning("not rung: %s", type(error).__name__)
