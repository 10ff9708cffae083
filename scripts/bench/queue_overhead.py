"""Measure the time per image for wakeup, claim, lease, result and closing, relative to processing the image."""

import os
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import redis

from scripts.bench import image_batches
from scripts.bench.report import Row, compare
from scripts.bench.servers import Process, Servers, cpu_seconds, running
from scripts.bench.timing import median, seconds
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.bootstrap import open_stores
from shared.ids import image_id
from shared.ledger import claims, closing, results
from shared.ledger.results import Result
from shared.queue.wakeups import WakeupPublisher
from shared.queues import IMAGES
from shared.storage.mongo import Document

_AT_MOST: Final = 0.05
_WAKEUPS: Final = 200
_WAIT_TIMEOUT_S: Final = 180.0


def measure(servers: Servers, images: list[bytes], *, rounds: int) -> list[Row]:
    """Compare, per image, the time for calls to the database and the queue with the time for processing the image.

    The calls are those for one claim, with which a worker takes several images at once; they use real servers. The
    processing uses the steps in ``worker.vision`` with the default augmentations on one thread. Both run the same code
    as a worker. A renewal of the claim's lease is included, although most claims need none.
    """
    process = _create_image_processor()
    fields: dict[str, Any] = {}

    def process_all() -> None:
        for number, data in enumerate(images):
            fields[str(number)] = process(data, f"{number:036x}")

    process_all()
    # The keys are row names. They do not change, so that figures from different versions can be compared.
    step_times: dict[str, list[float]] = {"turn": [], "bell": [], "claim": [], "renew": [], "finish": [], "close": []}
    processing_times: list[float] = []
    wakeups = open_stores(servers.settings, app="bench").wakeups[IMAGES]
    for number in range(-1, rounds):
        elapsed = _time_one_claim(servers, wakeups, images, list(fields.values()))
        processing_s = seconds(process_all)
        if number >= 0:
            processing_times.append(processing_s / len(images))
            for name, value in elapsed.items():
                step_times[name].append(value)
    wakeups.close()
    per_image = median(processing_times)
    parts = {name: median(values) / len(images) for name, values in step_times.items()}
    parts["a bell's task in the worker (CPU)"] = _task_cpu_s(servers) / len(images)
    rows = [compare(f"{name}, an image", 1000 * part, "ms", 1000 * per_image) for name, part in parts.items()]
    total = 1000 * sum(parts.values())
    rows.append(
        compare(f"all of it, an image at {len(images)} a claim", total, "ms", 1000 * per_image, at_most=_AT_MOST)
    )
    return rows


def _create_image_processor() -> Callable[[bytes, str], Document]:
    """Load the model, and return a function that processes one image as a worker does, but writes no files."""
    from worker.vision import image_steps, imaging  # noqa: PLC0415 -- torch takes seconds to import, and only this part needs it
    from worker.vision.detection import detect  # noqa: PLC0415 -- torch takes seconds to import, and only this part needs it

    detector = detect.load(threads=1, device="cpu")

    def run(data: bytes, name: str) -> Document:
        image = imaging.decode(data, max_pixels=50_000_000)
        prepared = image_steps.prepare(image, image_id=name, declared=None)
        (found,) = detector.predict([prepared.rgb])
        return image_steps.finish(prepared, found, list(DEFAULT_AUGMENTATIONS), detector.device).fields | {"model": detector.info}

    return run


def _time_one_claim(servers: Servers, wakeups: WakeupPublisher, images: list[bytes], fields: list[Document]) -> dict[str, float]:
    """Create a batch, claim its images, and finish them; return the seconds of each step.

    The steps include sending the wakeup, renewing the lease, and closing the batch. The images are not processed;
    ``fields`` holds their results.
    """
    db = servers.db
    batch_id = image_batches.commit_images(db, images, augmentations=DEFAULT_AUGMENTATIONS, detect=True)
    owner = f"bench:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    elapsed = {"turn": seconds(lambda: image_batches.touch_store(db)), "bell": seconds(wakeups.publish)}

    started = time.perf_counter()
    leases = claims.claim(db, owner, len(images), 30.0).leases
    elapsed["claim"] = time.perf_counter() - started
    if {claimed_id for claimed_id, _ in leases} != {image_id(batch_id, number) for number in range(len(images))}:
        raise RuntimeError("The claim does not hold exactly the images of the batch.")
    elapsed["renew"] = seconds(lambda: claims.renew(db, owner, leases, 30.0))

    done = [Result(claimed_id, fence, result) for (claimed_id, fence), result in zip(leases, fields, strict=True)]
    started = time.perf_counter()
    stored = results.finish(db, owner, done)
    elapsed["finish"] = time.perf_counter() - started
    started = time.perf_counter()
    closed = closing.close_batches(db, [batch_id])
    elapsed["close"] = time.perf_counter() - started
    if len(stored) != len(images) or closed != [batch_id]:
        raise RuntimeError("The batch was not closed.")
    return elapsed


def _task_cpu_s(servers: Servers) -> float:
    """Return the CPU seconds that a worker uses per wakeup when there are no images to process."""
    with redis.Redis.from_url(servers.redis.url, socket_timeout=5) as client:
        client.delete(IMAGES.name)
        worker = Process("overhead-worker", ["worker.entrypoints.images"], servers.environment, servers.folder)
        wakeups = open_stores(servers.settings, app="bench").wakeups[IMAGES]
        with running(worker):
            _send_and_wait(client, wakeups, worker, 5)
            before = cpu_seconds(worker.pid)
            _send_and_wait(client, wakeups, worker, _WAKEUPS)
            used = cpu_seconds(worker.pid) - before
        wakeups.close()
    return used / _WAKEUPS


def _send_and_wait(client: "redis.Redis", wakeups: WakeupPublisher, worker: Process, count: int) -> None:
    for _ in range(count):
        wakeups.publish()
    deadline = time.monotonic() + _WAIT_TIMEOUT_S
    while client.llen(IMAGES.name) or client.hlen("unacked"):
        worker.raise_if_ended()
        if time.monotonic() > deadline:
            raise RuntimeError(f"The worker did not process {count} wakeups within {_WAIT_TIMEOUT_S:.0f} s; see {worker.log}")
        time.sleep(0.02)  # poll, because the queue sends no notification
