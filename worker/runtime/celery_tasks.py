"""The Celery task that a wakeup starts, and the setup of its pool child. All work queues share this code."""

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init, worker_process_shutdown

from shared import allocator, telemetry
from shared.bootstrap import Stores, open_stores
from shared.errors import ShelfsightError
from shared.queue import heartbeats
from shared.queue.celery_app import make_celery_app
from shared.queue.wakeups import WakeupPublisher
from shared.queues import IMAGES, WorkQueue
from shared.settings import Settings
from shared.storage.identity import StoreIdentity
from worker.runtime.finished_work import FinishedWork

_MODEL_RETRY_S: Final = 30.0
"""Seconds that a pool child with an unusable model waits before it ends. Then the next child tries to load the model.
Celery may end the child earlier (``worker_proc_alive_timeout``). In this case, the next attempt is made earlier."""

_START_RETRY_S: Final = 5.0
"""Seconds that a pool child waits before it ends if it could not start for another reason."""


class Pipeline(Protocol):
    """Claims and processes the work that is queued for one work queue."""

    @property
    def finished(self) -> FinishedWork:
        """What counts the finished work, for the heartbeats."""

    def run(self, publish_wakeup: Callable[[], object], seconds: float) -> bool:
        """Claim and process work until nothing is claimable or ``seconds`` have passed.

        :param publish_wakeup: called when there is probably more work than this worker can do.
        :param seconds: the time in seconds after which nothing more is claimed.
        :returns: True if the time ended first and more work is probably claimable.
        """

    def stop(self) -> None:
        """Stop the threads and the sandbox processes."""


PipelineFactory = Callable[[Stores, Any, str], Pipeline]
"""Builds a pipeline from the stores, the detector, and the owner name of its claims. It is called in the pool child,
because only the pool child imports torch. The detector is None for a worker that needs none."""


@dataclass(slots=True)
class PoolChild:
    """The objects that a pool child works with. They are built once, after the child has started."""

    settings: Settings
    pipeline: Pipeline
    wakeups: WakeupPublisher


_pool_child: PoolChild | None = None


def make_worker_app(settings: Settings, work_queue: WorkQueue, make_pipeline: PipelineFactory, *, needs_detector: bool = True) -> Celery:
    """Return the Celery application of a worker. It has one task, which runs the pipeline.

    :param needs_detector: whether each pool child loads the model. If not, it does not import torch either.
    """
    app = make_celery_app(settings, work_queue)
    app.task(name=work_queue.task, ignore_result=True, Request="worker.runtime.requests:ReconnectingRequest")(run_pipeline)
    worker_process_init.connect(partial(_start_pool_child, work_queue, make_pipeline, needs_detector=needs_detector), weak=False)
    worker_process_shutdown.connect(_stop_pool_child, weak=False)
    return app


def run_pipeline() -> None:
    """Claim and process work until nothing is claimable, or ``task_s`` seconds have passed.

    The time is limited because a shutdown of the worker waits for the task to end.
    """
    child = _pool_child
    if child is None:
        raise RuntimeError("this process is not a pool child; start the task through a Celery worker")
    try:
        if child.pipeline.run(child.wakeups.publish, child.settings.worker.task_s):
            child.wakeups.publish()
    except ShelfsightError as error:
        telemetry.errors.warning("no work could be claimed: %s: %s", error.code, error.detail)  # the sweep will publish another wakeup
    except MemoryError:
        telemetry.errors.error("the task ran out of memory, so it ends and its claims are released")
    except SoftTimeLimitExceeded:
        telemetry.errors.error("the task exceeded its soft time limit, so its claims are released and its process ends")
        raise SystemExit(1) from None  # a thread of the interrupted work may still hang, and nothing else can end it


def _start_pool_child(work_queue: WorkQueue, make_pipeline: PipelineFactory, sender: str, *, needs_detector: bool, **_: Any) -> None:
    global _pool_child  # noqa: PLW0603 -- a process has one pool child object
    try:
        _pool_child = _make_pool_child(work_queue, make_pipeline, sender.partition("@")[0], needs_detector=needs_detector)
    except BaseException:  # noqa: BLE001 -- Celery only logs an exception that a signal receiver raises, and continues
        telemetry.errors.exception("a pool child could not start, so it ends and the pool starts a new one")
        time.sleep(_START_RETRY_S)  # otherwise, children that cannot start would be replaced without a pause
        os._exit(1)  # otherwise the child would receive wakeups and do nothing


def _make_pool_child(work_queue: WorkQueue, make_pipeline: PipelineFactory, name: str, *, needs_detector: bool) -> PoolChild:
    allocator.configure(allocator.WORKER)  # must precede all large allocations
    settings = Settings()
    telemetry.configure(settings.log, name)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    stores = open_stores(settings, app="worker")
    detector = _load_detector(settings, partial(heartbeats.send_heartbeat, stores.db, owner, work_queue)) if needs_detector else None
    child = PoolChild(settings, make_pipeline(stores, detector, owner), stores.wakeups[work_queue])
    model = detector.info if detector is not None and work_queue == IMAGES else None
    heartbeat = partial(heartbeats.send_heartbeat, stores.db, owner, work_queue, model=model)
    threading.Thread(target=_send_heartbeats, args=(heartbeat, stores.identity, child.pipeline.finished), name="heartbeat", daemon=True).start()
    signal.signal(signal.SIGTERM, _handle_sigterm)  # the pool sends SIGTERM after the soft shutdown
    return child


def _load_detector(settings: Settings, send_heartbeat: Callable[[str], None]) -> Any:
    """Load the model. If it is unusable, report this in heartbeats for some seconds, then end the process.

    The reports are sent for about ``_MODEL_RETRY_S`` seconds. After the process has ended, the pool starts a new child,
    which tries to load the model. This succeeds if an operator has repaired the model in the meantime.

    :param send_heartbeat: sends a heartbeat with an error code, which shows why this child cannot work.
    """
    from worker.vision.detection import detect, model_registry  # noqa: PLC0415 -- only the pool child imports torch

    vision = settings.vision
    try:
        return detect.load(vision.model, threads=vision.threads, device=vision.device, precision=vision.precision)
    except model_registry.ModelUnusable as error:
        telemetry.errors.error("no model: %s", error)  # without a traceback, because the sentence says everything
        until = time.monotonic() + _MODEL_RETRY_S
        while time.monotonic() < until:
            with suppress(ShelfsightError):  # the log shows the model error even if no heartbeat can be sent
                send_heartbeat("model_unusable")
            time.sleep(heartbeats.HEARTBEAT_INTERVAL_S)  # until the next heartbeat is due
        os._exit(1)


def _handle_sigterm(*_: object) -> None:
    """Exit by raising ``SystemExit``, so that the claims are released during the cleanup.

    Without this, no other worker could claim the work until the leases have expired.
    """
    raise SystemExit(0)


def _stop_pool_child(**_: Any) -> None:
    if _pool_child is not None:
        _pool_child.pipeline.stop()


def _send_heartbeats(send_heartbeat: Callable[..., None], identity: StoreIdentity, finished: FinishedWork) -> None:
    while True:
        with suppress(ShelfsightError):  # the failure is noticed because the heartbeats stop
            send_heartbeat(_find_impediment(identity), finished=finished.read(), busy=finished.read_busy())
        time.sleep(heartbeats.HEARTBEAT_INTERVAL_S)  # until the next heartbeat is due


def _find_impediment(identity: StoreIdentity) -> str | None:
    try:
        identity.check()
    except ShelfsightError as error:
        return error.code
    return None
