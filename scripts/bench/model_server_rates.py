"""The same model behind HTTP: LitServe, Ray Serve and the service itself, beside a bare loop; each alone on the machine."""

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
from scripts.bench.baselines.loop import GROUP, PROCESSES, Loops, detection
from scripts.bench.report import Row, against
from scripts.bench.servers import Process, running
from scripts.bench.timing import interleave, median
from scripts.local.embedded_servers import LOOPBACK, free_port
from scripts.local.installation import ROOT

_CLIENTS: Final = 2 * PROCESSES * GROUP
"""Twice what all workers hold: while they look at one group, the next one waits."""
_READY_S: Final = 240.0
_ANSWER_S: Final = 60.0
_LOOK_S: Final = 0.2
_LOOP: Final = "bare loop"
_RAY: Final = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # part of that mode, of use with HAProxy only
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: all of it stays on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Ray reads these when it is imported."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: pictures a second, and how many cores the clients took."""

    rate: float
    client: float = 0.0


def measure(folder: Path, *, quick: bool) -> list[Row]:
    """Compare images/s with those of two bare loops of decoding and detection. Servers that cannot be installed are left out.

    :param folder: on the disk to be measured; what is put there goes again.
    """
    images = [sample_uploads.jpeg(seed) for seed in range(service_rate.BATCH)]
    count = service_rate.BATCH * (3 if quick else 20)
    with Loops(detection, images) as loops:
        subjects: dict[str, Callable[[], Sample]] = {
            _LOOP: lambda: Sample(loops.images_per_second(count)),
            "Shelfsight, 2 workers, accepted to done, with original, thumbnail, boxes picture, barcodes, quality": lambda: (
                Sample(service_rate.images_per_second(folder, images, count, ()))
            ),
        }
        try:
            subjects |= _others(packages.folder("serving"), folder, images, count)
        except packages.NotInstalled as error:
            print(f"LitServe and Ray Serve are left out, they cannot be installed: {error}")
        samples = interleave(subjects, rounds=1 if quick else 5, warmups=0)  # each warms up by itself
    rates = {name: median(sample.rate for sample in taken) for name, taken in samples.items()}
    rows = [
        against(f"{name}: of {PROCESSES} bare loops", rate, "images/s", rates[_LOOP])
        for name, rate in rates.items()
        if name != _LOOP
    ]
    clients = max(sample.client for taken in samples.values() for sample in taken)
    return [*rows, Row("CPU of the HTTP clients, at most", clients, "cores")]


def _others(installed: Path, folder: Path, images: list[bytes], count: int) -> dict[str, Callable[[], Sample]]:
    """Give the measurements of LitServe and Ray Serve by name."""
    environment = {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]), "OMP_NUM_THREADS": "1"} | _RAY
    environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else it leaves one in the user's home

    def sample(app: str, is_ready: Callable[[Process, int], bool], *arguments: str) -> Sample:
        port = free_port()
        with tempfile.TemporaryDirectory(dir=folder) as logs:
            command = [f"scripts.bench.baselines.{app}", str(port), *arguments]
            process = Process(app, command, environment, Path(logs))
            with running(process):
                _wait(process, lambda: is_ready(process, port))
                _load(port, images, 2 * _CLIENTS)
                return _load(port, images, count)

    return {
        "LitServe, 1 worker, detections only": partial(sample, "litserve_app", _is_healthy, "1"),
        f"LitServe, {PROCESSES} workers, detections only": partial(sample, "litserve_app", _is_healthy, str(PROCESSES)),
        f"Ray Serve, {PROCESSES} replicas, detections only": partial(sample, "ray_app", _has_said_so),
    }


def _is_healthy(_process: Process, port: int) -> bool:
    """Ask LitServe, which says yes when all its workers are ready."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _has_said_so(process: Process, _port: int) -> bool:
    return READY in process.log.read_text(errors="replace")


def _wait(process: Process, is_ready: Callable[[], bool]) -> None:
    until = time.monotonic() + _READY_S
    while not is_ready():
        process.check()
        if time.monotonic() > until:
            raise RuntimeError(f"{process.name} was not ready within {_READY_S:.0f} s.")
        time.sleep(_LOOK_S)  # polling a process that is starting


def _load(port: int, images: list[bytes], count: int) -> Sample:
    """Send ``count`` pictures from many clients, each on its own kept connection."""
    numbers = iter(range(count))  # shared: one step of it is atomic
    began, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        for job in [threads.submit(_send, port, images, numbers) for _ in range(_CLIENTS)]:
            job.result()
    took = time.perf_counter() - began
    return Sample(count / took, (time.process_time() - used) / took)


def _send(port: int, images: list[bytes], numbers: Iterator[int]) -> None:
    """Send pictures one after the other, as long as there are numbers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)
    with contextlib.closing(connection):
        for number in numbers:
            connection.request("POST", "/predict", images[number % len(images)], {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            found = answer.read()
            if answer.status != 200 or not isinstance(json.loads(found), list):
                raise RuntimeError(f"A picture was answered {answer.status}: {found[:300]!r}")
