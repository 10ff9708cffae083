"""What a bell starts: one thin task, and what a pool child needs for it."""

import os
import signal
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init, worker_process_shutdown

from shared import signs, telemetry
from shared.blobs import LocalBlobs
from shared.broker import Bell, make_celery
from shared.contract import BELL_TASK
from shared.errors import ShelfsightError
from shared.mongo import Db, connect
from shared.settings import Settings
from worker import heap


@dataclass(slots=True)
class Child:
    """What one pool child works with: made once, after it was started."""

    settings: Settings
    pipeline: Any
    bell: Bell


_child: Child | None = None


def make_worker(settings: Settings) -> Celery:
    """Set up the Celery application with its one task."""
    app = make_celery(settings)
    app.task(name=BELL_TASK, ignore_result=True)(work)
    worker_process_init.connect(_begin, weak=False)
    worker_process_shutdown.connect(_end, weak=False)
    return app


def work() -> None:
    """Claim and work until nothing is claimable, or ``task_s`` is over, so that a stop finds a task at its end."""
    child = _child
    if child is None:
        raise RuntimeError("this process was not set up as a pool child")
    try:
        if child.pipeline.work_off(child.bell.ring, child.settings.worker.task_s):
            child.bell.ring()
    except ShelfsightError as error:
        telemetry.errors.warning("no claim: %s", error.code)  # the sweep rings again
    except MemoryError:
        telemetry.errors.error("out of memory; the task ends, the images are given back")
    except SoftTimeLimitExceeded:
        telemetry.errors.error("soft time limit reached; the images are given back")


def _begin(**_: Any) -> None:
    global _child  # noqa: PLW0603 -- one per process is what a pool child is
    try:
        _child = _make_child()
    except BaseException:  # noqa: BLE001 -- Celery logs what a signal's receiver raises, and goes on without it
        telemetry.errors.exception("a pool child could not begin; the pool starts another")
        os._exit(1)  # else it would take bells and do nothing


def _make_child() -> Child:
    heap.settle()  # before anything large is allocated
    from worker.pipeline import Pipeline  # noqa: PLC0415 -- torch lives in the child only
    from worker.vision import detect  # noqa: PLC0415 -- as above

    settings = Settings()
    telemetry.configure(settings.log, "worker")
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    db = connect(settings.mongo, app="worker")
    vision = settings.vision
    detector = detect.load(vision.model, threads=vision.threads, device=vision.device, precision=vision.precision)
    child = Child(settings, Pipeline(settings, db, LocalBlobs(settings.blobs.root), detector, owner), Bell(settings))
    threading.Thread(target=_beat, args=(db, owner), name="heartbeat", daemon=True).start()
    signal.signal(signal.SIGTERM, _leave)  # the pool's last word after the soft shutdown
    return child


def _leave(*_: object) -> None:
    """End in order: what is being worked on is given back at once, and nobody waits for its lease."""
    raise SystemExit(0)


def _end(**_: Any) -> None:
    if _child is not None:
        _child.pipeline.stop()


def _beat(db: Db, owner: str) -> None:
    while True:
        with suppress(ShelfsightError):  # that nothing is heard of us says it
            signs.beat(db, owner)
        time.sleep(signs.BEAT_S)
