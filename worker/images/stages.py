"""The stages of processing claimed images, a group at a time: decode, detect, finish.

Nothing here writes to the ledger. Threads decode and finish images beside the model; with ``VISION_IN_TURN`` they share
one core with it, one image or one group at a time. Suspicious images are decoded in the sandbox process, beside either.
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

_PIXELS_PER_IMAGE: Final = 3_100_000
"""For each image of a model batch: most pixels of a group. On a CPU a group has 75 MB decoded, which is two images of
12 megapixels. A larger image is a group of its own. At most three groups are in memory; a thread that finishes an
image takes up to five times the image's own bytes beside that (grain)."""
_MAX_GROUP_PIXELS: Final = 64_000_000
"""Most pixels of a group, whatever the batch size of the model."""

Fault = tuple[str, str]
"""Why an image failed: a code and a sentence."""


@dataclass(slots=True)
class LoadedImage:
    """The document of a claimed image with the bytes of its original, or with the fault that it has already."""

    image: Document
    data: bytes = b""
    fault: Fault | None = None


@dataclass(slots=True)
class DecodedGroup:
    """A group before the model: images that are ready for it, and the faults of images that failed."""

    prepared: list[tuple[Document, PreparedImage]]
    failed: list[tuple[Document, Fault]]


@dataclass(slots=True)
class DetectedGroup:
    """A group after the model: faults of images that failed, and images that are being drawn and encoded."""

    failed: list[tuple[Document, Fault]]
    finishing: list[tuple[Document, Future[PreparedImage]]]


class ImageStages:
    """The threads and the sandbox process that process the images of one owner.

    One thread may split images and start decoding while another one detects.
    """

    def __init__(self, settings: Settings, detector: Detector, is_held: Callable[[Document], bool]) -> None:
        """Start nothing yet.

        :param is_held: whether the claim of an image is still held; other images are skipped.
        """
        worker, self._max_pixels = settings.worker, settings.limits.max_pixels
        self._detector, self._is_held = detector, is_held
        self._sandbox = Sandbox(worker.child_memory_bytes, worker.child_timeout_s)
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")  # the only thread that uses the sandbox
        self._threads = ThreadPoolExecutor(settings.vision.threads, thread_name_prefix="image")
        one_core = settings.vision.in_turn and settings.vision.threads == 1 and detector.device == "cpu"
        # If the scheduler shared the core by milliseconds, each would find its caches full of the other's image: up to
        # a tenth of the rate (docs/benchmarks.md).
        self._turn: AbstractContextManager[object] = threading.Lock() if one_core else nullcontext()

    def split(self, images: list[LoadedImage]) -> list[list[LoadedImage]]:
        """Split images into groups of at most one model batch, with a bounded number of pixels."""
        groups: list[list[LoadedImage]] = []
        max_pixels, pixels = min(_MAX_GROUP_PIXELS, self._detector.batch_size * _PIXELS_PER_IMAGE), 0
        for loaded in images:
            more = imaging.read_pixel_count(loaded.data) or self._max_pixels
            if not groups or len(groups[-1]) == self._detector.batch_size or pixels + more > max_pixels:
                groups.append([])
                pixels = 0
            groups[-1].append(loaded)
            pixels += more
        return groups

    def start_decoding(self, group: list[LoadedImage]) -> Future[DecodedGroup]:
        """Start to decode a group.

        :raises RuntimeError: after ``close``.
        """
        return self._decoder.submit(self._decode, group)

    def detect(self, decoded: DecodedGroup) -> DetectedGroup:
        """Run the model on a group, and start to draw and encode its images."""
        wanted = [(image["_id"], prepared.rgb) for image, prepared in decoded.prepared if image["work"]["detect"]]
        detections: dict[str, list[dict[str, Any]]] = {}
        if wanted:  # else there is no need to wait for the turn
            with self._turn:
                predicted = self._detector.predict([rgb for _, rgb in wanted])
            detections = dict(zip((image_id for image_id, _ in wanted), predicted, strict=True))
        finishing = [
            (image, self._threads.submit(self._finish, image, prepared, detections.get(image["_id"], [])))
            for image, prepared in decoded.prepared
        ]
        return DetectedGroup(decoded.failed, finishing)

    def process_solo(self, loaded: LoadedImage) -> DetectedGroup:
        """Process an image that must be tried alone: everything but the model runs in the sandbox."""
        image = loaded.image
        if not self._is_held(image):
            return DetectedGroup([], [])
        fault = loaded.fault
        if fault is None and image["work"]["faults"] >= SOLO_DEATHS_ALLOWED:
            fault = ("decoder_crash", CODES["decoder_crash"])
        if fault is not None:
            return DetectedGroup([(image, fault)], [])
        prepared = self._decoder.submit(self._prepare, loaded, sandboxed=True).result()
        if not isinstance(prepared, PreparedImage):
            return DetectedGroup([(image, prepared)], [])
        detections = self._detector.predict([prepared.rgb])[0] if image["work"]["detect"] else []
        finish = FinishImage(prepared, detections, image["work"]["augmentations"])
        return DetectedGroup([], [(image, self._decoder.submit(self._sandbox.run, finish))])

    def close(self) -> None:
        """Cancel what has not started, and end the sandbox process; a thread that waits for it gets an error."""
        for executor in (self._decoder, self._threads):
            executor.shutdown(wait=False, cancel_futures=True)
        self._sandbox.close()

    def _finish(self, image: Document, prepared: PreparedImage, detections: list[dict[str, Any]]) -> PreparedImage:
        with self._turn:
            return image_steps.finish(prepared, detections, image["work"]["augmentations"], self._detector.device)

    def _decode(self, group: list[LoadedImage]) -> DecodedGroup:
        """Prepare the images of a group for the model, and drop their encoded bytes."""
        held = [loaded for loaded in group if self._is_held(loaded.image)]
        jobs: list[Future[PreparedImage | Fault] | None] = []
        for loaded in held:
            plain = not loaded.image["work"]["solo"] and imaging.is_plain_jpeg(loaded.data, max_pixels=self._max_pixels)
            in_thread = plain and loaded.fault is None
            jobs.append(self._threads.submit(self._prepare, loaded, sandboxed=False) if in_thread else None)
        # Meanwhile the suspicious images, one after the other in the sandbox.
        others = {
            at: loaded.fault or self._prepare(loaded, sandboxed=True)
            for at, loaded in enumerate(held)
            if jobs[at] is None
        }
        decoded = DecodedGroup([], [])
        for at, (loaded, job) in enumerate(zip(held, jobs, strict=True)):
            outcome = others[at] if job is None else job.result()
            if isinstance(outcome, PreparedImage):
                decoded.prepared.append((loaded.image, outcome))
            else:
                decoded.failed.append((loaded.image, outcome))
            loaded.data = b""
        return decoded

    def _prepare(self, loaded: LoadedImage, *, sandboxed: bool) -> PreparedImage | Fault:
        image_id, declared = loaded.image["_id"], loaded.image["barcode"]
        if not self._is_held(loaded.image):  # the claim was released or lost meanwhile
            return "lease_lost", ""
        failpoints.reach(f"5-looking:{image_id}")
        try:
            if sandboxed:
                return self._sandbox.run(PrepareImage(loaded.data, image_id, declared, self._max_pixels))
            with self._turn:
                decoded = imaging.decode(loaded.data, max_pixels=self._max_pixels)
                return image_steps.prepare(decoded, image_id=image_id, declared=declared)
        except VisionError as error:
            return error.code, error.detail
