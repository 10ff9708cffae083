"""The three stages in which a group of claimed images is processed: decode, detect, and finish.

This module writes nothing to the ledger. Threads decode and finish images while the model runs. With
``VISION_IN_TURN``, the threads and the model take turns on one core: a turn lasts for one image in a thread, or for one
group in the model. Suspicious images (all except plain JPEGs) are decoded in the sandbox process, which does not
wait for a turn.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from shared import failpoints
from shared.ledger import claims
from shared.ledger.claims import Claim
from shared.settings import Settings
from shared.storage.mongo import Document
from worker.images.attempt_times import AttemptTimes
from worker.sandbox.parent import Sandbox
from worker.sandbox.requests import FinishImage, PrepareImage
from worker.vision import image_steps, imaging
from worker.vision.detection.detect import Detector
from worker.vision.errors import CODES, VisionError
from worker.vision.image_steps import PreparedImage

_PIXELS_PER_IMAGE: Final = 3_100_000
"""The maximum number of pixels in a group is this number times the number of images in one batch of the model. On a
CPU, a decoded group takes up to 75 MB, which is enough for two images of 12 megapixels. An image that exceeds the limit
forms a group of its own. At most three groups are in memory. In addition, a thread that finishes an image takes up to
five times the decoded size of that image (for an augmentation that adds noise)."""
_MAX_GROUP_PIXELS: Final = 64_000_000
"""Maximum number of pixels in a group, regardless of the model's batch size."""

Fault = tuple[str, str]
"""The reason why an image failed: an error code and a sentence."""


@dataclass(slots=True)
class LoadedImage:
    """The document of a claimed image, with either the bytes of its original or the fault found while loading them."""

    image: Document
    data: bytes = b""
    fault: Fault | None = None


@dataclass(slots=True)
class DecodedGroup:
    """A group before detection: images that are ready for the model, and images that failed, with their faults."""

    prepared: list[tuple[Document, PreparedImage]]
    failed: list[tuple[Document, Fault]]


@dataclass(slots=True)
class DetectedGroup:
    """A group after detection: the images that failed, with their faults, and the images being drawn and encoded."""

    failed: list[tuple[Document, Fault]]
    finishing: list[tuple[Document, Future[PreparedImage]]]

    @property
    def is_finished(self) -> bool:
        """Whether the last step for each image has ended."""
        return all(finishing.done() for _, finishing in self.finishing)


@dataclass(slots=True)
class LoadedClaim:
    """A claim whose originals are already stored under their own keys. It has no images if nothing was claimable.

    ``groups`` contains the images, divided into the groups in which they will be processed. ``first_group`` is the
    pending result of decoding the first group. It is None if there are no images, or if the only image is tried alone.
    ``detected`` is set for an image that is tried alone, once the model has processed it.
    """

    claim: Claim
    groups: list[list[LoadedImage]] = field(default_factory=list)
    first_group: Future[DecodedGroup] | None = None
    detected: DetectedGroup | None = None

    @property
    def is_solo(self) -> bool:
        """Whether the claim has only one image, which must be tried alone. Other claims never have such images."""
        return len(self.claim.images) == 1 and bool(self.claim.images[0]["work"]["solo"])

    @property
    def is_processed(self) -> bool:
        """Whether the only image of a claim was processed, so that only its files and its result are to be stored."""
        return self.detected is not None and self.detected.is_finished


class ImageStages:
    """The threads and the sandbox process that one pipeline uses to process its images.

    One thread may call ``split`` and ``start_decoding`` while another thread calls ``detect``.
    """

    def __init__(self, settings: Settings, detector: Detector, is_held: Callable[[Document], bool], times: AttemptTimes) -> None:
        """Create the executors and the sandbox. Threads and the sandbox process are started on first use.

        :param is_held: returns whether the claim on an image is still held. Images for which it returns False are
            skipped.
        :param times: gets the time that each step takes for an image. The time in which it waits for its turn does not count.
        """
        worker, self._max_pixels = settings.worker, settings.limits.max_pixels
        self._detector, self._is_held, self._times = detector, is_held, times
        self._sandbox = Sandbox(worker.child_memory_bytes, worker.child_timeout_s)
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")  # only this thread uses the sandbox
        self._threads = ThreadPoolExecutor(settings.vision.threads, thread_name_prefix="image")
        one_core = settings.vision.in_turn and settings.vision.threads == 1 and detector.device == "cpu"
        # Without turns, the scheduler would switch between the threads and the model every few milliseconds. After each
        # switch, the CPU caches would have to be filled with the data of another image. This can reduce the number of
        # images per second by up to a tenth (docs/benchmarks.md).
        self._turn: AbstractContextManager[object] = threading.Lock() if one_core else nullcontext()

    def split(self, images: list[LoadedImage]) -> list[list[LoadedImage]]:
        """Split images into groups. A group fits into one model batch, and its total number of pixels is limited."""
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
        """Start to decode a group in a thread.

        :raises RuntimeError: when ``close`` was called before.
        """
        return self._decoder.submit(self._decode, group)

    def detect(self, decoded: DecodedGroup) -> DetectedGroup:
        """Run the model on a group, and start to draw and encode its images."""
        wanted = [(image, prepared.rgb) for image, prepared in decoded.prepared if image["work"]["detect"]]
        detections: dict[str, list[dict[str, Any]]] = {}
        if wanted:  # if no image needs detection, there is no need to wait for a turn
            with self._turn, self._times.measure("detect_ms", [image for image, _ in wanted]):
                predicted = self._detector.predict([rgb for _, rgb in wanted])
            detections = dict(zip((image["_id"] for image, _ in wanted), predicted, strict=True))
        finishing = [
            (image, self._threads.submit(self._finish, image, prepared, detections.get(image["_id"], [])))
            for image, prepared in decoded.prepared
        ]
        return DetectedGroup(decoded.failed, finishing)

    def process_solo(self, loaded: LoadedImage, begin: Callable[[Document], bool]) -> DetectedGroup:
        """Process an image that must be tried alone. Everything except the model runs in the sandbox.

        :param begin: called before the first step, unless the image fails without being processed. If it returns False,
            the image is skipped.
        """
        image = loaded.image
        if not self._is_held(image):
            return DetectedGroup([], [])
        fault = loaded.fault
        if fault is None and claims.is_exhausted(image):
            fault = ("decoder_crash", CODES["decoder_crash"])
        if fault is not None:
            return DetectedGroup([(image, fault)], [])
        if not begin(image):
            return DetectedGroup([], [])
        prepared = self._decoder.submit(self._prepare, loaded, sandboxed=True).result()
        if not isinstance(prepared, PreparedImage):
            return DetectedGroup([(image, prepared)], [])
        detections: list[dict[str, Any]] = []
        if image["work"]["detect"]:
            with self._times.measure("detect_ms", [image]):
                detections = self._detector.predict([prepared.rgb])[0]
        return DetectedGroup([], [(image, self._decoder.submit(self._finish_sandboxed, image, prepared, detections))])

    def close(self) -> None:
        """Cancel calls that have not started, and kill the sandbox process.

        A thread that waits for a reply of the sandbox process gets an error.
        """
        for executor in (self._decoder, self._threads):
            executor.shutdown(wait=False, cancel_futures=True)
        self._sandbox.close()

    def _finish(self, image: Document, prepared: PreparedImage, detections: list[dict[str, Any]]) -> PreparedImage:
        with self._turn, self._times.measure("finish_ms", [image]):
            return image_steps.finish(prepared, detections, image["work"]["augmentations"], self._detector.device)

    def _finish_sandboxed(self, image: Document, prepared: PreparedImage, detections: list[dict[str, Any]]) -> PreparedImage:
        with self._times.measure("finish_ms", [image]):
            return self._sandbox.run(FinishImage(prepared, detections, image["work"]["augmentations"]))

    def _decode(self, group: list[LoadedImage]) -> DecodedGroup:
        """Decode the images of a group and prepare them for the model. Drop the bytes of their originals."""
        held = [loaded for loaded in group if self._is_held(loaded.image)]
        jobs: list[Future[PreparedImage | Fault] | None] = []
        for loaded in held:
            plain = not loaded.image["work"]["solo"] and imaging.is_plain_jpeg(loaded.data, max_pixels=self._max_pixels)
            in_thread = plain and loaded.fault is None
            jobs.append(self._threads.submit(self._prepare, loaded, sandboxed=False) if in_thread else None)
        # While the threads work, the suspicious images are decoded in the sandbox, one after the other.
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
        for loaded in group:
            loaded.data = b""
        return decoded

    def _prepare(self, loaded: LoadedImage, *, sandboxed: bool) -> PreparedImage | Fault:
        image_id, declared = loaded.image["_id"], loaded.image["barcode"]
        if not self._is_held(loaded.image):  # the claim has been released or lost in the meantime
            return "lease_lost", ""
        failpoints.reach(f"5-looking:{image_id}")
        try:
            if sandboxed:
                with self._times.measure("decode_ms", [loaded.image]):
                    return self._sandbox.run(PrepareImage(loaded.data, image_id, declared, self._max_pixels))
            with self._turn, self._times.measure("decode_ms", [loaded.image]):
                decoded = imaging.decode(loaded.data, max_pixels=self._max_pixels)
                return image_steps.prepare(decoded, image_id=image_id, declared=declared)
        except VisionError as error:
            return error.code, error.detail
