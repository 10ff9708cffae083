"""The Celery task that a wakeup starts, and the set-up of its pool child. The same for every work queue."""

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
from shared.queues import WorkQueue
from shared.settings import Settings
from shared.storage.identity import StoreIdentity

_MODEL_RETRY_S: Final = 30.0
"""Pause before another attempt to load an unusable model. Celery ends a child that takes ``worker_proc_alive_timeout``
to start; that is only one more attempt."""


class Pipeline(Protocol):
    """Claims and processes what waits in one work queue."""

    def run(self, publish_wakeup: Callable[[], object], seconds: float) -> bool:
        """Claim and process until nothing is claimable or the time is over.

        :param publish_wakeup: called when there is probably more work than this worker can do.
        :returns: True when the time was over and more work is probably claimable.
        """

    def stop(self) -> None:
        """End threads and sandbox processes."""


PipelineFactory = Callable[[Stores, Any, str], Pipeline]
"""Builds a pipeline from the stores, the detector and the owner of its claims, in the pool child: torch is imported only there."""


@dataclass(slots=True)
class PoolChild:
    """What one pool child works with, built once after its start."""

    settings: Settings
    pipeline: Pipeline
    wakeups: WakeupPublisher


_pool_child: PoolChild | None = None


def make_worker_app(settings: Settings, work_queue: WorkQueue, make_pipeline: PipelineFactory) -> Celery:
    """Return the Celery application of a worker, with its one task."""
    app = make_celery_app(settings, work_queue)
    app.task(name=work_queue.task, ignore_result=True)(run_pipeline)
    worker_process_init.connect(partial(_start_pool_child, work_queue, make_pipeline), weak=False)
    worker_process_shutdown.connect(_stop_pool_child, weak=False)
    return app


def run_pipeline() -> None:
    """Claim and process until nothing is claimable, but only for ``task_s`` seconds: a shutdown waits for the task."""
    child = _pool_child
    if child is None:
        raise RuntimeError("this process was not set up as a pool child")
    try:
        if child.pipeline.run(child.wakeups.publish, child.settings.worker.task_s):
            child.wakeups.publish()
    except ShelfsightError as error:
        telemetry.errors.warning("no claim: %s", error.code)  # the sweep publishes another wakeup
    except MemoryError:
        telemetry.errors.error("out of memory; the task ends and its claims are released")
    except SoftTimeLimitExceeded:
        telemetry.errors.error("soft time limit exceeded; the claims are released")


def _start_pool_child(work_queue: WorkQueue, make_pipeline: PipelineFactory, sender: str, **_: Any) -> None:
    global _pool_child  # noqa: PLW0603 -- a process is one pool child
    try:
        _pool_child = _make_pool_child(work_queue, make_pipeline, sender.partition("@")[0])
    except BaseException:  # noqa: BLE001 -- Celery logs what a signal's receiver raises, and continues without it
        telemetry.errors.exception("a pool child could not start; the pool starts another")
        os._exit(1)  # otherwise it would receive wakeups and do nothing


def _make_pool_child(work_queue: WorkQueue, make_pipeline: PipelineFactory, name: str) -> PoolChild:
    allocator.configure(allocator.WORKER)  # before anything large is allocated
    settings = Settings()
    telemetry.configure(settings.log, name)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    stores = open_stores(settings, app="worker")
    detector = _load_detector(settings, partial(heartbeats.send_heartbeat, stores.db, owner, work_queue))
    child = PoolChild(settings, make_pipeline(stores, detector, owner), stores.wakeups[work_queue])
    threading.Thread(target=_send_heartbeats, args=(stores, owner, work_queue), name="heartbeat", daemon=True).start()
    signal.signal(signal.SIGTERM, _handle_sigterm)  # the pool sends it after the soft shutdown
    return child


def _load_detector(settings: Settings, send_heartbeat: Callable[[str], None]) -> Any:
    """Load the model. If it is unusable, report that for a while and end the process.

    The next pool child finds what was repaired meanwhile.


    :param send_heartbeat: reports the error code of what keeps this child from working.
    """
    from worker.vision.detection import detect, model_registry  # noqa: PLC0415 -- torch is imported in the child only

    vision = settings.vision
    try:
        return detect.load(vision.model, threads=vision.threads, device=vision.device, precision=vision.precision)
    except model_registry.ModelUnusable as error:
        telemetry.errors.error("no model: %s", error)  # the sentence is complete; a traceback would add nothing
        until = time.monotonic() + _MODEL_RETRY_S
        while time.monotonic() < until:
            with suppress(ShelfsightError):  # the log has the error
                send_heartbeat("model_unusable")
            time.sleep(heartbeats.HEARTBEAT_INTERVAL_S)
        os._exit(1)


def _handle_sigterm(*_: object) -> None:
    """End in an orderly way: what is held is released at once, so that no worker waits for its lease to end."""
    raise SystemExit(0)


def _stop_pool_child(**_: Any) -> None:
    if _pool_child is not None:
        _pool_child.pipeline.stop()


def _send_heartbeats(stores: Stores, owner: str, work_queue: WorkQueue) -> None:
    while True:
        with suppress(ShelfsightError):  # missing heartbeats show the failure
            heartbeats.send_heartbeat(stores.db, owner, work_queue, _find_impediment(stores.identity))
        time.sleep(heartbeats.HEARTBEAT_INTERVAL_S)


def _find_impediment(identity: StoreIdentity) -> str | None:
    try:
        identity.check()
    except ShelfsightError as error:
        return error.code
    return None
