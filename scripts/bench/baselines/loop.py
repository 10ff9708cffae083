"""The baseline for all model servers: the service's processing in a bare loop, in two processes with one thread each.

No import at the top of this module loads torch, so that the benchmark's own process needs little memory. The processes
of the loop import torch when they create their pipeline.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from threading import Barrier
from types import TracebackType
from typing import Any, Final, Self

from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.settings import Limits

BATCH_SIZE: Final = 8
"""Images per call of the model in every measurement; the same as ``worker.vision.detection.detect.CPU_BATCH_SIZE``."""
PROCESSES: Final = 2
_TIMEOUT_S: Final = 600.0

Pipeline = Callable[[list[bytes]], list[Any]]
"""A function that processes a list of encoded images and returns one result per image."""


def create_detection() -> Pipeline:
    """Load the model for use with one thread, and return a pipeline that decodes images and detects objects in them.

    The pipeline returns the detections as values that can be written as JSON.
    """
    from worker.vision import imaging  # noqa: PLC0415 -- torch takes seconds to import, and only some processes need it
    from worker.vision.detection import detect  # noqa: PLC0415 -- torch takes seconds to import, and only some processes need it

    detector = detect.load(threads=1)
    max_pixels = Limits().max_pixels
    return lambda files: detector.predict([imaging.decode(data, max_pixels=max_pixels).rgb for data in files])


def create_pipeline() -> Pipeline:
    """Load the model for use with one thread, and return the pipeline that ``full_pipeline`` creates for it."""
    from worker.vision.detection import detect  # noqa: PLC0415 -- torch takes seconds to import

    return full_pipeline(detect.load(threads=1))


def full_pipeline(detector: Any) -> Pipeline:
    """Return a pipeline that processes images with ``detector`` in the way in which a worker does by default.

    Unlike a worker, the pipeline does not read or write files. As in the service, each image gets a new id, because the
    random augmentations of an image depend on its id. If every call used the same few ids, the measurement would use
    the same few augmentations, which could happen to be cheaper than the average.

    :param detector: a ``Detector`` with a loaded model.
    """
    from worker.vision import image_steps, imaging  # noqa: PLC0415 -- torch takes seconds to import

    max_pixels, ids = Limits().max_pixels, count()

    def process(files: list[bytes]) -> list[Any]:
        images = [imaging.decode(data, max_pixels=max_pixels) for data in files]
        prepared = [image_steps.prepare(image, image_id=f"{next(ids):036x}", declared=None) for image in images]
        found = detector.predict([image.rgb for image in prepared])
        return [image_steps.finish(*pair, list(DEFAULT_AUGMENTATIONS), detector.device) for pair in zip(prepared, found, strict=True)]

    return process


class LoopProcesses:
    """Processes that each run a bare loop, which calls a pipeline with one batch after the other, without any server.

    The processes start once, are idle between measurements, and end when the context ends.

    :param create: ``create_detection`` or ``create_pipeline``; it is called in each process.
    """

    def __init__(self, create: Callable[[], Pipeline], images: list[bytes], processes: int = PROCESSES) -> None:
        context = get_context("spawn")
        barrier = context.Barrier(processes)
        self._processes = processes
        self._pool = ProcessPoolExecutor(processes, context, _set_up, (create, images, barrier))

    def images_per_second(self, count: int) -> float:
        """Process ``count`` images in total after an unmeasured warm-up, and return the images per second.

        :returns: the sum of the rates of all processes.
        """
        jobs = [self._pool.submit(_rate, count // self._processes) for _ in range(self._processes)]
        return sum(job.result(_TIMEOUT_S) for job in jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Loop:
    """What one process of ``LoopProcesses`` needs for a measurement.

    All processes wait at ``barrier`` after their warm-up, so that they start measuring at the same moment.
    """

    process: Pipeline
    images: list[bytes]
    barrier: Barrier


_loop: _Loop | None = None


def _set_up(create: Callable[[], Pipeline], images: list[bytes], barrier: Barrier) -> None:
    global _loop  # noqa: PLW0603 -- the initializer of a process pool has no other place for the process's state
    _loop = _Loop(create(), images, barrier)


def _rate(count: int) -> float:
    loop = _loop
    if loop is None:
        raise RuntimeError("The initializer did not run in this process.")
    images = [loop.images[number % len(loop.images)] for number in range(count)]
    loop.process(images[:BATCH_SIZE])
    loop.barrier.wait(_TIMEOUT_S)  # all processes start at the same moment
    started = time.perf_counter()
    for first in range(0, count, BATCH_SIZE):
        loop.process(images[first : first + BATCH_SIZE])
    return count / (time.perf_counter() - started)
