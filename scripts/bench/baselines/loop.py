"""The reference of all serving: the same work in a bare loop, in two processes with one thread each.

Nothing is imported here that loads torch: the bench itself stays small, its processes load what they need.
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

GROUP: Final = 8
"""Pictures that the model takes at once: ``worker.vision.detection.detect.BATCH``, for all that is compared."""
PROCESSES: Final = 2
_LIMIT_S: Final = 600.0

Work = Callable[[list[bytes]], list[Any]]
"""Does something to a group of encoded pictures; one result for each."""


def detection() -> Work:
    """Load the model on one thread; give what decodes pictures and finds things in them, as JSON would say it."""
    from worker.vision import imaging  # noqa: PLC0415 -- torch takes seconds to import, and only some processes need it
    from worker.vision.detection import detect  # noqa: PLC0415 -- torch takes seconds to import, and only some processes need it

    detector = detect.load(threads=1)
    max_pixels = Limits().max_pixels
    return lambda group: detector.predict([imaging.decode(data, max_pixels=max_pixels).rgb for data in group])


def pipeline() -> Work:
    """Load the model on one thread; give everything that a worker does to pictures by default, less reading and writing."""
    from worker.vision.detection import detect  # noqa: PLC0415 -- as above

    return whole_work(detect.load(threads=1))


def whole_work(detector: Any) -> Work:
    """Give everything that a worker does to pictures by default, less reading and writing, with a ``Detector``.

    Each picture has another id and so other draws, as in the service: eight draws again and again may be cheap ones.
    """
    from worker.vision import image_steps, imaging  # noqa: PLC0415 -- as above

    max_pixels, ids = Limits().max_pixels, count()

    def run(group: list[bytes]) -> list[Any]:
        pictures = [imaging.decode(data, max_pixels=max_pixels) for data in group]
        prepared = [image_steps.prepare(picture, image_id=f"{next(ids):036x}", declared=None) for picture in pictures]
        found = detector.predict([one.rgb for one in prepared])
        return [image_steps.finish(*pair, list(DEFAULT_AUGMENTATIONS), detector.device) for pair in zip(prepared, found, strict=True)]

    return run


class Loops:
    """The processes: started once, idle between measurements. A context manager that ends them."""

    def __init__(self, work: Callable[[], Work], images: list[bytes]) -> None:
        """Start them.

        :param work: ``detection`` or ``pipeline``, called in each process.
        """
        context = get_context("spawn")
        together = context.Barrier(PROCESSES)
        self._pool = ProcessPoolExecutor(PROCESSES, context, _begin, (work, images, together))

    def images_per_second(self, count: int) -> float:
        """Let them work together on ``count`` pictures, after one group that does not count; the sum of their rates."""
        jobs = [self._pool.submit(_rate, count // PROCESSES) for _ in range(PROCESSES)]
        return sum(job.result(_LIMIT_S) for job in jobs)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Loop:
    """What one of the processes works with."""

    work: Work
    images: list[bytes]
    together: Barrier


_loop: _Loop | None = None


def _begin(work: Callable[[], Work], images: list[bytes], together: Barrier) -> None:
    global _loop  # noqa: PLW0603 -- one per process: this is how a pool's processes are set up
    _loop = _Loop(work(), images, together)


def _rate(count: int) -> float:
    loop = _loop
    if loop is None:
        raise RuntimeError("This process was not set up.")
    images = [loop.images[at % len(loop.images)] for at in range(count)]
    loop.work(images[:GROUP])
    loop.together.wait(_LIMIT_S)  # all start at the same moment, each in a process of its own
    began = time.perf_counter()
    for at in range(0, count, GROUP):
        loop.work(images[at : at + GROUP])
    return count / (time.perf_counter() - began)
