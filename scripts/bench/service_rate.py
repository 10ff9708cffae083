"""The service as shipped, from accepted to done, beside a bare loop of the same pipeline on the same cores."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scripts.bench import sample_uploads
from scripts.bench.baselines.loop import PROCESSES, Loops, pipeline
from scripts.bench.http_client import Poster
from scripts.bench.report import Row, against
from scripts.bench.servers import WEB, Gunicorn, Process, Servers, running
from scripts.bench.timing import interleave, median
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.storage.mongo import Db

BATCH: Final = 32
_AT_LEAST: Final = 0.9
_WARM_UPS: Final = 2
_BEGIN_S: Final = 180.0
_DONE_S: Final = 600.0
_LOOK_S: Final = 0.5
"""Between two questions to the database. What is measured comes from its own clock; at twenty a second the questions took 1.5% of the two cores."""


def measure(folder: Path, *, quick: bool) -> list[Row]:
    """Compare the service's rate with that of two bare loops over everything it does to a picture, less reading and writing.

    :param folder: on the disk to be measured; what is put there goes again.
    """
    images = [sample_uploads.jpeg(seed) for seed in range(BATCH)]
    count = BATCH * (3 if quick else 20)  # at the end of a backlog one worker has nothing left: the longer, the less that weighs
    with Loops(pipeline, images) as loops:
        rates = interleave(
            {
                "loop": lambda: loops.images_per_second(count),
                "service": lambda: images_per_second(folder, images, count, DEFAULT_AUGMENTATIONS),
            },
            rounds=1 if quick else 5,
            warmups=0,  # each warms up by itself
        )
    name = f"service with {PROCESSES} workers, from accepted to done, of {PROCESSES} bare loops of its pipeline"
    return [against(name, median(rates["service"]), "images/s", median(rates["loop"]), at_least=_AT_LEAST)]


def images_per_second(folder: Path, images: list[bytes], count: int, augmentations: tuple[str, ...]) -> float:
    """Start everything as ``scripts/start`` does on two cores, upload ``count`` pictures at once, stop everything.

    :param images: one batch.
    :returns: pictures a second from the first 202 to the last one done.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name, contextlib.ExitStack() as stack:
        servers = Servers(Path(name))
        stack.callback(servers.stop)
        environment = servers.environment | {"VISION_AUGMENTATIONS": json.dumps(augmentations), "VISION_IN_TURN": "true"}
        web = Gunicorn("web", WEB, environment, servers.folder)
        stack.enter_context(running(web))
        for number in range(1, PROCESSES + 1):
            worker = Process(
                f"worker-{number}", ["worker.entrypoints.images", "--name", f"worker-{number}"], environment, servers.folder
            )
            stack.enter_context(running(worker))
        stack.enter_context(running(Process("sweep", ["worker.entrypoints.sweep"], environment, servers.folder)))
        _until(_BEGIN_S, lambda: servers.db.workers.count_documents({}) == PROCESSES)  # a beat comes after the model
        poster = Poster(web.port)
        stack.callback(poster.close)
        _upload(poster, images, _WARM_UPS)
        _until(_DONE_S, lambda: _is_done(servers.db))
        accepted = _upload(poster, images, count // len(images))
        _until(_DONE_S, lambda: _is_done(servers.db))
        return count / (_finished(servers.db) - accepted)


def _upload(poster: Poster, images: list[bytes], batches: int) -> float:
    """Upload batches one after the other.

    :returns: when the first of them was accepted, seconds since the epoch.
    """
    upload = sample_uploads.upload(images)
    poster.post(upload)
    accepted = time.time()
    for _ in range(batches - 1):
        poster.post(upload)
    return accepted


def _is_done(db: Db) -> bool:
    return db.batches.find_one({"open": True}, {"_id": 1}) is None


def _finished(db: Db) -> float:
    """Give the moment when the last image was done, by MongoDB's clock, which is this machine's: seconds since the epoch."""
    if db.images.count_documents({"status": {"$ne": "done"}}):
        raise RuntimeError("Not all images were done: this measures nothing.")
    (last,) = db.images.find({}, {"finished_at": 1}).sort("finished_at", -1).limit(1)
    finished: datetime = last["finished_at"]
    return finished.replace(tzinfo=UTC).timestamp()


def _until(seconds: float, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"The service was not ready, or not done, within {seconds:.0f} s.")
        time.sleep(_LOOK_S)  # polling the database
