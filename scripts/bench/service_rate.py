"""Compare the service's rate, from accepted to done, with a bare loop of the same pipeline on the same cores."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scripts.bench import sample_uploads
from scripts.bench.baselines.loop import PROCESSES, LoopProcesses, create_pipeline
from scripts.bench.extent import Extent
from scripts.bench.http_client import UploadClient
from scripts.bench.report import Row, compare
from scripts.bench.servers import WEB, Gunicorn, Process, Servers, running
from scripts.bench.timing import interleave, median
from scripts.bench.waiting import wait_until
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.storage.mongo import Db

BATCH: Final = 32
SMOKE_BATCH: Final = 2
_AT_LEAST: Final = 0.9
_WARMUP_BATCHES: Final = 2
_READY_TIMEOUT_S: Final = 180.0
_DONE_TIMEOUT_S: Final = 600.0
_POLL_INTERVAL_S: Final = 0.5
"""Seconds between two polls of the database. This interval does not affect the measured times, which come from stored
timestamps. With twenty polls per second, polling took 1.5% of the two cores."""


def measure(folder: Path, *, extent: Extent) -> list[Row]:
    """Compare the images per second of the whole service with those of bare loops.

    The bare loops are as many processes as the service has workers. They process the images like a worker, but without
    an upload, a database, or reading and writing files.

    :param folder: a folder on the disk to measure; the files that are written to it are removed.
    """
    images = [sample_uploads.draw_jpeg(seed) for seed in range(extent.choose(full=BATCH, quick=BATCH, smoke=SMOKE_BATCH))]
    # At the end of the backlog, one worker has no work left; a longer backlog reduces the weight of this phase.
    count = len(images) * extent.choose(full=20, quick=3, smoke=1)
    processes = extent.choose(full=PROCESSES, quick=PROCESSES, smoke=1)  # each loads the model
    with LoopProcesses(create_pipeline, images, processes) as loops:
        rates = interleave(
            {
                "loop": lambda: loops.images_per_second(count),
                "service": lambda: images_per_second(folder, images, count, DEFAULT_AUGMENTATIONS, processes),
            },
            rounds=extent.choose(full=5, quick=1, smoke=1),
            warmups=0,  # each subject does its own warm-up
        )
    name = f"service with {processes} workers, from accepted to done, of {processes} bare loops of its pipeline"
    return [compare(name, median(rates["service"]), "images/s", median(rates["loop"]), at_least=_AT_LEAST)]


def images_per_second(folder: Path, images: list[bytes], count: int, augmentations: tuple[str, ...], workers: int = PROCESSES) -> float:
    """Start the processes that ``scripts/start`` starts on a machine with two cores, upload ``count`` images, and stop all processes.

    :param images: the images of one batch, which is uploaded repeatedly.
    :returns: images per second, from the first 202 response after the warm-up until the last image is done.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name, contextlib.ExitStack() as stack:
        servers = Servers(Path(name))
        stack.callback(servers.stop)
        environment = servers.environment | {"VISION_AUGMENTATIONS": json.dumps(augmentations), "VISION_IN_TURN": "true"}
        web = Gunicorn("web", WEB, environment, servers.folder)
        stack.enter_context(running(web))
        for number in range(1, workers + 1):
            worker = Process(
                f"worker-{number}", ["worker.entrypoints.images", "--name", f"worker-{number}"], environment, servers.folder
            )
            stack.enter_context(running(worker))
        stack.enter_context(running(Process("sweep", ["worker.entrypoints.sweep"], environment, servers.folder)))
        _wait_until(_READY_TIMEOUT_S, lambda: servers.db.workers.count_documents({}) == workers)  # heartbeats start after the model is loaded
        client = UploadClient(web.port)
        stack.callback(client.close)
        _upload(client, images, _WARMUP_BATCHES)
        _wait_until(_DONE_TIMEOUT_S, lambda: _is_done(servers.db))
        client.connect()
        accepted = _upload(client, images, count // len(images))
        _wait_until(_DONE_TIMEOUT_S, lambda: _is_done(servers.db))
        return count / (_last_finished_at(servers.db) - accepted)


def _upload(client: UploadClient, images: list[bytes], batches: int) -> float:
    """Upload the same images ``batches`` times as one batch each, one after the other.

    :returns: the time when the first batch was accepted, in seconds since the epoch.
    """
    upload = sample_uploads.json_upload(images)
    client.post(upload)
    accepted = time.time()
    for _ in range(batches - 1):
        client.post(upload)
    return accepted


def _is_done(db: Db) -> bool:
    return db.batches.find_one({"open": True}, {"_id": 1}) is None


def _last_finished_at(db: Db) -> float:
    """Return the time when the last image was done, in seconds since the epoch.

    MongoDB sets this time. It can be compared with times of this process, because MongoDB uses this machine's clock.
    """
    if db.images.count_documents({"status": {"$ne": "done"}}):
        raise RuntimeError("Some images are not done, so the rate cannot be measured.")
    (last,) = db.images.find({}, {"finished_at": 1}).sort("finished_at", -1).limit(1)
    finished: datetime = last["finished_at"]
    return finished.replace(tzinfo=UTC).timestamp()


def _wait_until(seconds: float, condition: Callable[[], bool]) -> None:
    wait_until(condition, seconds, "The service was not ready, or had not processed all images,", interval_s=_POLL_INTERVAL_S)
