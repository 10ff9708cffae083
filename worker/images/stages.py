"""Looking at claimed pictures, a group at a time; nothing of the ledger.

Threads decode and draw beside the model, or, asked to share one core with it (``VISION_IN_TURN``), one picture or one group at a time. Suspicious
pictures are decoded in the helper, beside either.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from shared import failpoints
from shared.settings import Settings
from shared.states import SOLO_DEATHS_ALLOWED
from shared.storage.mongo import Document
from worker.sandbox.parent import Sandbox
from worker.sandbox.requests import FinishImage, PrepareImage
from worker.vision import image_steps, imaging
from worker.vision.detection.detect import Detector
from worker.vision.errors import CODES, VisionError
from worker.vision.image_steps import PreparedImage

_PIXELS_EACH: Final = 3_100_000
"""For each picture that the model takes at once: most pixels of a group. On a CPU this is 75 MB decoded, two pictures of 12 megapixels. A picture with more is a
group of its own. Three groups are under way at the most; a thread that draws takes up to five times its picture's own bytes beside that (grain)."""
_MOST_PIXELS: Final = 64_000_000
"""Of a group, however many pictures the model takes."""

Fault = tuple[str, str]
"""Code and sentence."""


@dataclass(slots=True)
class Loaded:
    """A claimed image with the bytes of its original, or the fault that it has already."""

    image: Document
    data: bytes = b""
    error: Fault | None = None


@dataclass(slots=True)
class Decoded:
    """What became of a group before the model: pictures that are ready for it, and faults of those that never will be."""

    prepared: list[tuple[Document, PreparedImage]]
    failed: list[tuple[Document, Fault]]


@dataclass(slots=True)
class Seen:
    """What became of a group after the model: faults, and pictures that threads or the helper still draw and encode."""

    failed: list[tuple[Document, Fault]]
    making: list[tuple[Document, Future[PreparedImage]]]


class Looking:
    """The threads and the helper that look at one owner's pictures. One thread may divide and begin what another, which detects, goes on with."""

    def __init__(self, settings: Settings, detector: Detector, holds: Callable[[Document], bool]) -> None:
        """Start nothing yet.

        :param holds: whether an image is still ours; what is not is passed over.
        """
        worker, self._max_pixels = settings.worker, settings.limits.max_pixels
        self._detector, self._holds = detector, holds
        self._isolate = Sandbox(worker.child_memory_bytes, worker.child_timeout_s)
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")  # the one thread that asks the helper
        self._threads = ThreadPoolExecutor(settings.vision.threads, thread_name_prefix="look")
        one_core = settings.vision.in_turn and settings.vision.threads == 1 and detector.device == "cpu"
        # Sharing it by the system's milliseconds, each would find its caches full of the other's pictures: up to a tenth of the rate (docs/benchmarks.md).
        self._turn: AbstractContextManager[object] = threading.Lock() if one_core else nullcontext()

    def groups(self, loaded: list[Loaded]) -> list[list[Loaded]]:
        """Divide pictures into what is decoded at once: as many as the model takes together, and no more pixels than are affordable."""
        groups: list[list[Loaded]] = []
        most, pixels = min(_MOST_PIXELS, self._detector.batch_size * _PIXELS_EACH), 0
        for one in loaded:
            more = imaging.read_pixel_count(one.data) or self._max_pixels
            if not groups or len(groups[-1]) == self._detector.batch_size or pixels + more > most:
                groups.append([])
                pixels = 0
            groups[-1].append(one)
            pixels += more
        return groups

    def begin(self, group: list[Loaded]) -> Future[Decoded]:
        """Begin to decode a group."""
        return self._decoder.submit(self._decode, group)

    def detect(self, decoded: Decoded) -> Seen:
        """Let the model look at a group, and begin to draw what it found."""
        asked = [(image["_id"], one.rgb) for image, one in decoded.prepared if image["work"]["detect"]]
        found: dict[str, list[dict[str, Any]]] = {}
        if asked:  # else it would wait for its turn for nothing
            with self._turn:
                found = dict(zip((name for name, _ in asked), self._detector.predict([rgb for _, rgb in asked]), strict=True))
        making = [
            (image, self._threads.submit(self._finish, one, found.get(image["_id"], []), image["work"]["augmentations"]))
            for image, one in decoded.prepared
        ]
        return Seen(decoded.failed, making)

    def alone(self, one: Loaded) -> Seen:
        """PrepareImage at a picture that is to be tried alone: all but the model in the helper."""
        image = one.image
        if not self._holds(image):
            return Seen([], [])
        error = one.error
        if error is None and image["work"]["faults"] >= SOLO_DEATHS_ALLOWED:
            error = ("decoder_crash", CODES["decoder_crash"])
        if error is not None:
            return Seen([(image, error)], [])
        prepared = self._decoder.submit(self._prepare, one, here=False).result()
        if not isinstance(prepared, PreparedImage):
            return Seen([(image, prepared)], [])
        found = self._detector.predict([prepared.rgb])[0] if image["work"]["detect"] else []
        return Seen([], [(image, self._decoder.submit(self._isolate.run, FinishImage(prepared, found, image["work"]["augmentations"])))])

    def end(self) -> None:
        """Drop what waits; whoever waits for the helper is told that it is gone."""
        for executor in (self._decoder, self._threads):
            executor.shutdown(wait=False, cancel_futures=True)
        self._isolate.close()

    def _finish(self, prepared: PreparedImage, found: list[dict[str, Any]], names: list[str]) -> PreparedImage:
        with self._turn:
            return image_steps.finish(prepared, found, names, self._detector.device)

    def _decode(self, group: list[Loaded]) -> Decoded:
        """Make pictures ready for the model, and let their bytes go."""
        held = [one for one in group if self._holds(one.image)]
        jobs: list[Future[PreparedImage | Fault] | None] = []
        for one in held:
            plain = not one.image["work"]["solo"] and imaging.is_plain_jpeg(one.data, max_pixels=self._max_pixels)
            jobs.append(self._threads.submit(self._prepare, one, here=True) if plain and one.error is None else None)
        # The suspicious ones meanwhile, one after the other in the helper.
        others = {at: one.error or self._prepare(one, here=False) for at, one in enumerate(held) if jobs[at] is None}
        decoded = Decoded([], [])
        for at, (one, job) in enumerate(zip(held, jobs, strict=True)):
            outcome = others[at] if job is None else job.result()
            if isinstance(outcome, PreparedImage):
                decoded.prepared.append((one.image, outcome))
            else:
                decoded.failed.append((one.image, outcome))
            one.data = b""
        return decoded

    def _prepare(self, one: Loaded, *, here: bool) -> PreparedImage | Fault:
        image_id, declared = one.image["_id"], one.image["barcode"]
        if not self._holds(one.image):  # the claim was broken off meanwhile
            return "lease_lost", ""
        failpoints.reach(f"5-looking:{image_id}")
        try:
            if here:
                with self._turn:
                    picture = imaging.decode(one.data, max_pixels=self._max_pixels)
                    return image_steps.prepare(picture, image_id=image_id, declared=declared)
            return self._isolate.run(PrepareImage(one.data, image_id, declared, self._max_pixels))
        except VisionError as error:
            return error.code, error.detail
