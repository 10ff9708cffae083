"""What a bell starts: one thin task, and what a pool child needs for it. The same for every door."""

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

from shared import telemetry
from shared.errors import ShelfsightError
from shared.media_types import Door
from shared.queue import heartbeats
from shared.queue.wakeups import Bell, make_celery
from shared.settings import Settings
from shared.storage.identity import Bond
from shared.storage.local_blobs import BlobStore, LocalBlobs
from shared.storage.mongo import Db, connect
from worker.runtime import allocator

_WITHOUT_MODEL_S: Final = 30.0
"""Between two tries to load a model that cannot be used. Celery ends a child that takes ``worker_proc_alive_timeout`` to begin; it is one more try then."""


class Work(Protocol):
    """What is behind a door."""

    def work_off(self, ring: Callable[[], object], seconds: float) -> bool:
        """Claim and work until nothing is claimable or the time is over.

        :param ring: called when there is likely more than one worker can do.
        :returns: True when the time was over and more is likely waiting.
        """

    def stop(self) -> None:
        """End helpers and threads."""


MakeWork = Callable[[Settings, Db, BlobStore, Any, str], Work]
"""Makes it, in the child, of its stores, the detector and its owner's name. It imports what it needs then: torch lives in the child only."""


@dataclass(slots=True)
class Child:
    """What one pool child works with: made once, after it was started."""

    settings: Settings
    work: Work
    bell: Bell


_child: Child | None = None


def make_worker(settings: Settings, door: Door, make_work: MakeWork) -> Celery:
    """Set up the Celery application with its one task."""
    app = make_celery(settings, door)
    app.task(name=door.task, ignore_result=True)(work)
    worker_process_init.connect(partial(_begin, door, make_work), weak=False)
    worker_process_shutdown.connect(_end, weak=False)
    return app


def work() -> None:
    """Claim and work until nothing is claimable, or ``task_s`` is over, so that a stop finds a task at its end."""
    child = _child
    if child is None:
        raise RuntimeError("this process was not set up as a pool child")
    try:
        if child.work.work_off(child.bell.ring, child.settings.worker.task_s):
            child.bell.ring()
    except ShelfsightError as error:
        telemetry.errors.warning("no claim: %s", error.code)  # the sweep rings again
    except MemoryError:
        telemetry.errors.error("out of memory; the task ends, its work is given back")
    except SoftTimeLimitExceeded:
        telemetry.errors.error("soft time limit reached; the work is given back")


def _begin(door: Door, make_work: MakeWork, sender: str, **_: Any) -> None:
    global _child  # noqa: PLW0603 -- one per process is what a pool child is
    try:
        _child = _make_child(door, make_work, sender.partition("@")[0])
    except BaseException:  # noqa: BLE001 -- Celery logs what a signal's receiver raises, and goes on without it
        telemetry.errors.exception("a pool child could not begin; the pool starts another")
        os._exit(1)  # else it would take bells and do nothing


def _make_child(door: Door, make_work: MakeWork, name: str) -> Child:
    allocator.settle()  # before anything large is allocated
    settings = Settings()
    telemetry.configure(settings.log, name)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    db = connect(settings.mongo, app="worker")
    detector = _load_detector(settings, partial(heartbeats.beat, db, owner, door))
    blobs = LocalBlobs(settings.blobs.root)
    child = Child(settings, make_work(settings, db, blobs, detector, owner), Bell(settings, door))
    threading.Thread(target=_beat, args=(db, owner, door, Bond(db, blobs)), name="heartbeat", daemon=True).start()
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
            time.sleep(heartbeats.BEAT_S)
        os._exit(1)


def _leave(*_: object) -> None:
    """End in order: what is being worked on is given back at once, and nobody waits for its lease."""
    raise SystemExit(0)


def _end(**_: Any) -> None:
    if _child is not None:
        _child.work.stop()


def _beat(db: Db, owner: str, door: Door, bond: Bond) -> None:
    while True:
        with suppress(ShelfsightError):  # that nothing is heard of us says it
            heartbeats.beat(db, owner, door, _hindrance(bond))
        time.sleep(heartbeats.BEAT_S)


def _hindrance(bond: Bond) -> str | None:
    try:
        bond.check()
    except ShelfsightError as error:
        return error.code
    return None
