"""What a bell starts: one thin task, and what a pool child needs for it. The same for every work_queue."""

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

_WITHOUT_MODEL_S: Final = 30.0
"""Between two tries to load a model that cannot be used. Celery ends a child that takes ``worker_proc_alive_timeout`` to begin; it is one more try then."""


class Work(Protocol):
    """What is behind a work_queue."""

    def work_off(self, ring: Callable[[], object], seconds: float) -> bool:
        """Claim and work until nothing is claimable or the time is over.

        :param ring: called when there is likely more than one worker can do.
        :returns: True when the time was over and more is likely waiting.
        """

    def stop(self) -> None:
        """End helpers and threads."""


MakeWork = Callable[[Stores, Any, str], Work]
"""Builds it in the pool child, from the stores, the detector and the claims' owner. It imports torch only then."""


@dataclass(slots=True)
class Child:
    """What one pool child works with: made once, after it was started."""

    settings: Settings
    work: Work
    wakeups: WakeupPublisher


_child: Child | None = None


def make_worker(settings: Settings, work_queue: WorkQueue, make_work: MakeWork) -> Celery:
    """Set up the Celery application with its one task."""
    app = make_celery_app(settings, work_queue)
    app.task(name=work_queue.task, ignore_result=True)(work)
    worker_process_init.connect(partial(_begin, work_queue, make_work), weak=False)
    worker_process_shutdown.connect(_end, weak=False)
    return app


def work() -> None:
    """Claim and work until nothing is claimable, or ``task_s`` is over, so that a stop finds a task at its end."""
    child = _child
    if child is None:
        raise RuntimeError("this process was not set up as a pool child")
    try:
        if child.work.work_off(child.wakeups.publish, child.settings.worker.task_s):
            child.wakeups.publish()
    except ShelfsightError as error:
        telemetry.errors.warning("no claim: %s", error.code)  # the sweep rings again
    except MemoryError:
        telemetry.errors.error("out of memory; the task ends, its work is given back")
    except SoftTimeLimitExceeded:
        telemetry.errors.error("soft time limit reached; the work is given back")


def _begin(work_queue: WorkQueue, make_work: MakeWork, sender: str, **_: Any) -> None:
    global _child  # noqa: PLW0603 -- one per process is what a pool child is
    try:
        _child = _make_child(work_queue, make_work, sender.partition("@")[0])
    except BaseException:  # noqa: BLE001 -- Celery logs what a signal's receiver raises, and goes on without it
        telemetry.errors.exception("a pool child could not begin; the pool starts another")
        os._exit(1)  # else it would take bells and do nothing


def _make_child(work_queue: WorkQueue, make_work: MakeWork, name: str) -> Child:
    allocator.configure(allocator.WORKER)  # before anything large is allocated
    settings = Settings()
    telemetry.configure(settings.log, name)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    stores = open_stores(settings, app="worker")
    detector = _load_detector(settings, partial(heartbeats.send_heartbeat, stores.db, owner, work_queue))
    child = Child(settings, make_work(stores, detector, owner), stores.wakeups[work_queue])
    threading.Thread(target=_beat, args=(stores, owner, work_queue), name="heartbeat", daemon=True).start()
    signal.signal(signal.SIGTERM, _leave)  # the pool's last word after the soft shutdown
    return child


def _load_detector(settings: Settings, beat: Callable[[str], None]) -> Any:
    """Load the model. Without one the child says so for a while, and ends: the next one finds what was put right meanwhile.

    :param beat: tells the others what hinders this one.
    """
    from worker.vision.detection import detect, model_registry  # noqa: PLC0415 -- torch lives in the child only

    vision = settings.vision
    try:
        return detect.load(vision.model, threads=vision.threads, device=vision.device, precision=vision.precision)
    except model_registry.ModelUnusable as error:
        telemetry.errors.error("no model: %s", error)  # the sentence says all; where it was raised says nothing
        until = time.monotonic() + _WITHOUT_MODEL_S
        while time.monotonic() < until:
            with suppress(ShelfsightError):  # the log has it
                beat("model_unusable")
            time.sleep(heartbeats.HEARTBEAT_INTERVAL_S)
        os._exit(1)


def _leave(*_: object) -> None:
    """End in order: what is being worked on is given back at once, and nobody waits for its lease."""
    raise SystemExit(0)


def _end(**_: Any) -> None:
    if _child is not None:
        _child.work.stop()


def _beat(stores: Stores, owner: str, work_queue: WorkQueue) -> None:
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
