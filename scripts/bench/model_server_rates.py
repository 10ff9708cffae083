"""Measure the same model behind HTTP in LitServe, Ray Serve and the service, and compare the rates with a bare loop.

Only one server, or the loop, runs at a time.
"""

import contextlib
import http.client
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from scripts.bench import sample_uploads, service_rate
from scripts.bench.baselines import READY, packages
from scripts.bench.baselines.loop import BATCH_SIZE, PROCESSES, LoopProcesses, create_detection
from scripts.bench.extent import Extent
from scripts.bench.report import Row, compare
from scripts.bench.servers import Process, running
from scripts.bench.timing import interleave, median
from scripts.bench.waiting import wait_until
from scripts.local.installation import ROOT
from scripts.local.servers.ports import LOOPBACK, free_port

_CLIENTS: Final = 2 * PROCESSES * BATCH_SIZE
"""Number of clients: twice the number of images that all workers process at once, so that the next batch is waiting
while a worker processes a batch."""
_READY_TIMEOUT_S: Final = 240.0
_RESPONSE_TIMEOUT_S: Final = 60.0
_POLL_INTERVAL_S: Final = 0.2
_LOOP: Final = "bare loop"
_RAY: Final = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # a part of the throughput mode that is useful only with HAProxy
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name, this variable also affects Linux, where it keeps all of Ray on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables that Ray reads on import."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: images per second, and the CPU cores that the clients used."""

    rate: float
    client_cores: float = 0.0


def measure(folder: Path, *, extent: Extent) -> list[Row]:
    """Compare the images per second of Shelfsight, LitServe and Ray Serve with those of two bare loops.

    The bare loops are two processes that only decode images and detect objects in them. LitServe and Ray Serve are left
    out if they cannot be installed.

    :param folder: a folder on the disk to measure; the files that are written to it are removed.
    """
    batch = extent.choose(full=service_rate.BATCH, quick=service_rate.BATCH, smoke=service_rate.SMOKE_BATCH)
    images = [sample_uploads.draw_jpeg(seed) for seed in range(batch)]
    count = batch * extent.choose(full=20, quick=3, smoke=1)
    with LoopProcesses(create_detection, images) as loops:
        subjects: dict[str, Callable[[], Sample]] = {
            _LOOP: lambda: Sample(loops.images_per_second(count)),
            "Shelfsight, 2 workers, accepted to done, with original, thumbnail, boxes picture, barcodes, quality": lambda: (
                Sample(service_rate.images_per_second(folder, images, count, ()))
            ),
        }
        try:
            subjects |= _other_servers(packages.installed_folder("serving", extent), folder, images, count)
        except packages.NotInstalled as error:
            print(f"LitServe and Ray Serve are left out: {error}")
        samples = interleave(subjects, rounds=extent.choose(full=5, quick=1, smoke=1), warmups=0)  # each subject does its own warm-up
    rates = {name: median(sample.rate for sample in of_subject) for name, of_subject in samples.items()}
    rows = [
        compare(f"{name}: of {PROCESSES} bare loops", rate, "images/s", rates[_LOOP])
        for name, rate in rates.items()
        if name != _LOOP
    ]
    client_cores = max(sample.client_cores for of_subject in samples.values() for sample in of_subject)
    return [*rows, Row("CPU of the HTTP clients, at most", client_cores, "cores")]


def _other_servers(installed: Path, folder: Path, images: list[bytes], count: int) -> dict[str, Callable[[], Sample]]:
    """Return the functions that measure LitServe and Ray Serve; the keys are the names of the rows."""
    environment = {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]), "OMP_NUM_THREADS": "1"} | _RAY
    environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # otherwise, Ray stores a token in the user's home folder

    def sample(app: str, is_ready: Callable[[Process, int], bool], *arguments: str) -> Sample:
        port = free_port()
        with tempfile.TemporaryDirectory(dir=folder) as logs:
            command = [f"scripts.bench.baselines.{app}", str(port), *arguments]
            process = Process(app, command, environment, Path(logs))
            with running(process):
                _wait_until_ready(process, lambda: is_ready(process, port))
                _load(port, images, 2 * _CLIENTS)
                return _load(port, images, count)

    return {
        "LitServe, 1 worker, detections only": partial(sample, "litserve_app", _is_healthy, "1"),
        f"LitServe, {PROCESSES} workers, detections only": partial(sample, "litserve_app", _is_healthy, str(PROCESSES)),
        f"Ray Serve, {PROCESSES} replicas, detections only": partial(sample, "ray_app", _has_printed_ready),
    }


def _is_healthy(_process: Process, port: int) -> bool:
    """Return whether LitServe's health route responds with 200, which means that all its workers are ready."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_RESPONSE_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _has_printed_ready(process: Process, _port: int) -> bool:
    return READY in process.log.read_text(errors="replace")


def _wait_until_ready(process: Process, is_ready: Callable[[], bool]) -> None:
    def check() -> bool:
        if is_ready():
            return True
        process.raise_if_ended()
        return False

    wait_until(check, _READY_TIMEOUT_S, f"{process.name} was not ready", interval_s=_POLL_INTERVAL_S)


def _load(port: int, images: list[bytes], count: int) -> Sample:
    """Send ``count`` images in total from several clients at the same time, each over its own persistent connection.

    :returns: the images per second, and the CPU cores that the clients used.
    """
    numbers = iter(range(count))  # the threads share this iterator, because each of its steps is atomic
    started, cpu_before = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        for job in [threads.submit(_send_images, port, images, numbers) for _ in range(_CLIENTS)]:
            job.result()
    elapsed = time.perf_counter() - started
    return Sample(count / elapsed, (time.process_time() - cpu_before) / elapsed)


def _send_images(port: int, images: list[bytes], numbers: Iterator[int]) -> None:
    """Send images over one connection, one after the other, until ``numbers`` is exhausted.

    :param numbers: the numbers of the images to send. All clients share this iterator, so each number is sent once.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_RESPONSE_TIMEOUT_S)
    with contextlib.closing(connection):
        for number in numbers:
            connection.request("POST", "/predict", images[number % len(images)], {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or not isinstance(json.loads(body), list):
                raise RuntimeError(f"Unexpected response to an image: status {response.status}, expected 200 and a list: {body[:300]!r}")
