"""The Celery application of the workers. If Redis is unreachable or frozen, work is delayed but not lost."""

import os

from celery import Celery

from shared.queues import WorkQueue
from shared.settings import Settings


def make_celery_app(settings: Settings, work_queue: WorkQueue) -> Celery:
    """Return the Celery application for the workers of one queue. It connects to Redis on its first use."""
    # With this variable, SIGTERM starts the soft shutdown, which releases claims instead of finishing their images.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    app = Celery("shelfsight", broker=settings.redis.url)
    hard = settings.worker.hard_limit_s
    app.conf.update(
        task_default_queue=work_queue.name,
        task_serializer="json",
        accept_content=["json"],
        # Results are stored in MongoDB. With a result backend, a task takes 1.7 to 2.8 times as long.
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # A message is acknowledged late, but not requeued when its worker dies: requeueing would repeat a crash without
        # end, and the sweep publishes wakeups anyway.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_time_limit=hard,
        task_soft_time_limit=settings.worker.soft_limit_s,
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        worker_pool_start_method="spawn",  # CUDA cannot be used in a forked process
        worker_concurrency=settings.worker.processes,
        worker_max_memory_per_child=settings.worker.most_memory_bytes // 1024,
        worker_proc_alive_timeout=120,  # loading the model in the child takes long
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,  # in pool children, Celery's replacement for stderr drops log output
        worker_soft_shutdown_timeout=10.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # otherwise, the worker exits when Redis is full
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
