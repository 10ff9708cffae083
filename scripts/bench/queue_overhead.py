"""What bell, claim, lease, result and closing cost an image, beside the looking itself."""

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import redis

from scripts.bench.report import Row, against
from scripts.bench.servers import Process, Servers, cpu_s, running
from scripts.bench.timing import median, seconds
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.ids import image_id, new_batch_id
from shared.ledger import claims, commits, results, store_rotation
from shared.ledger.results import Result
from shared.queue.wakeups import WakeupPublisher
from shared.queues import IMAGES
from shared.storage.mongo import Document

_AT_MOST: Final = 0.05
_BELLS: Final = 200
_WAIT_S: Final = 180.0


def measure(servers: Servers, images: list[bytes], *, rounds: int) -> list[Row]:
    """Compare the ledger's and the bell's time for one claim with the time of looking at its images.

    Both are taken from the parts that the worker runs: the steps of ``worker.vision`` with the default augmentations on one
    thread, and the calls of one claim against real servers, a renewal included though most claims need none.
    """
    look = _looker()
    fields: dict[str, Any] = {}

    def one_look() -> None:
        for number, data in enumerate(images):
            fields[str(number)] = look(data, f"{number:036x}")

    one_look()
    claims_s: dict[str, list[float]] = {"turn": [], "bell": [], "claim": [], "renew": [], "finish": [], "close": []}
    looking: list[float] = []
    bell = WakeupPublisher(servers.settings.redis, IMAGES)
    for number in range(-1, rounds):
        took = _one_claim(servers, bell, images, list(fields.values()))
        looked = seconds(one_look)
        if number >= 0:
            looking.append(looked / len(images))
            for name, value in took.items():
                claims_s[name].append(value)
    bell.close()
    per_image = median(looking)
    parts = {name: median(values) / len(images) for name, values in claims_s.items()}
    parts["a bell's task in the worker (CPU)"] = _task_cpu_s(servers) / len(images)
    rows = [against(f"{name}, an image", 1000 * part, "ms", 1000 * per_image) for name, part in parts.items()]
    total = 1000 * sum(parts.values())
    rows.append(
        against(f"all of it, an image at {len(images)} a claim", total, "ms", 1000 * per_image, at_most=_AT_MOST)
    )
    return rows


def _looker() -> Callable[[bytes, str], Document]:
    """Load the model; give the function that does everything the worker does to one picture, less the writing of files."""
    from worker.vision import image_steps, imaging  # noqa: PLC0415 -- torch takes seconds to import: only this part needs it
    from worker.vision.detection import detect  # noqa: PLC0415 -- torch takes seconds to import: only this part needs it

    detector = detect.load(threads=1, device="cpu")

    def run(data: bytes, name: str) -> Document:
        picture = imaging.decode(data, max_pixels=50_000_000)
        prepared = image_steps.prepare(picture, image_id=name, declared=None)
        (found,) = detector.predict([prepared.rgb])
        return image_steps.finish(prepared, found, list(DEFAULT_AUGMENTATIONS), detector.device).fields | {"model": detector.info}

    return run


def _one_claim(servers: Servers, bell: WakeupPublisher, images: list[bytes], fields: list[Document]) -> dict[str, float]:
    """Take one batch through bell, claim, renewal, finish and close; seconds of each."""
    db = servers.db
    batch_id = new_batch_id()
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    new = []
    offset = 0
    for number, data in enumerate(images):
        digest = hashlib.sha256(data).hexdigest()
        new.append(commits.NewImage(number, "jpg", "image/jpeg", len(data), digest, offset, now, "bench", "cam-1"))
        offset += len(data)
    commits.commit_batch(db, commits.NewBatch(batch_id, new, DEFAULT_AUGMENTATIONS, detect=True, created_at=now))
    owner = f"bench:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    took = {"turn": seconds(lambda: store_rotation.touch(db, {"bench"})), "bell": seconds(bell.publish)}

    began = time.perf_counter()
    held = claims.claim(db, owner, len(images), 30.0).images
    took["claim"] = time.perf_counter() - began
    fences = [(image["_id"], image["work"]["fence"]) for image in held]
    if {name for name, _ in fences} != {image_id(batch_id, number) for number in range(len(images))}:
        raise RuntimeError("The claim did not take the batch.")
    took["renew"] = seconds(lambda: claims.renew(db, fences, owner, 30.0))

    done = [Result(name, fence, found) for (name, fence), found in zip(fences, fields, strict=True)]
    began = time.perf_counter()
    stored = results.finish(db, owner, done)
    took["finish"] = time.perf_counter() - began
    began = time.perf_counter()
    closed = results.close_batches(db, [batch_id])
    took["close"] = time.perf_counter() - began
    if len(stored) != len(images) or closed != [batch_id]:
        raise RuntimeError("The batch did not close.")
    return took


def _task_cpu_s(servers: Servers) -> float:
    """Give the CPU seconds that the real worker spends on a bell that finds nothing."""
    with redis.Redis.from_url(servers.redis.url, socket_timeout=5) as client:
        client.delete(IMAGES.name)
        worker = Process("overhead-worker", ["worker.entrypoints.images"], servers.environment, servers.folder)
        bell = WakeupPublisher(servers.settings.redis, IMAGES)
        with running(worker):
            _ring_and_wait(client, bell, worker, 5)
            before = cpu_s(worker.pid)
            _ring_and_wait(client, bell, worker, _BELLS)
            used = cpu_s(worker.pid) - before
        bell.close()
    return used / _BELLS


def _ring_and_wait(client: "redis.Redis", bell: WakeupPublisher, worker: Process, bells: int) -> None:
    for _ in range(bells):
        bell.publish()
    until = time.monotonic() + _WAIT_S
    while client.llen(IMAGES.name) or client.hlen("unacked"):
        worker.check()
        if time.monotonic() > until:
            raise RuntimeError(f"The worker did not take {bells} bells within {_WAIT_S:.0f} s; see {worker.log}")
        time.sleep(0.02)  # polling the queue
