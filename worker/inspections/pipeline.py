"""Process inspections: fetch the image, process it, store the result, and notify the web processes that wait for it.

Each inspection runs in its own thread, so a slow source does not delay other inspections. The threads take turns in
using the resources that they share: the sandbox processes, the model, and the dreamer (see ``Attempt``). Untrusted
images are decoded and augmented in the sandbox processes.
"""

import hashlib
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import pymongo

from shared.bootstrap import Stores
from shared.errors import BadPicture, Busy, Environment, NotAnImage, ShelfsightError, StoreAway
from shared.fetch.client import Fetcher
from shared.inspections import jobs, results
from shared.inspections.jobs import Job, Validators
from shared.inspections.notifications import Publisher
from shared.inspections.recipes import Augment, Dream
from shared.media_types import sniff
from shared.queue import pauses
from shared.queue.leases import Lease
from shared.queues import INSPECTIONS
from shared.states import SOLO_DEATHS_ALLOWED
from shared.storage.blob_keys import incoming_key, inspection_key, inspection_prefix
from shared.storage.blobs import BlobMissing
from shared.variants import DREAM
from worker.inspections.attempt import Attempt
from worker.runtime.finished_work import FinishedWork
from worker.runtime.lease_keeper import LeaseKeeper
from worker.sandbox import requests
from worker.sandbox.parent import Sandbox
from worker.vision import imaging
from worker.vision.describe import ImageDescription
from worker.vision.detection.detect import Detector
from worker.vision.dream import Dreamer
from worker.vision.errors import VisionError
from worker.vision.imaging import Rgb

_log = logging.getLogger("shelfsight.error")
_POLL_S: Final = 0.05
_SANDBOXES: Final = 2
"""With two sandbox processes, one can work while the result of the other one is processed."""
_MAX_DREAMS: Final = 2
"""Number of inspections with a dream that a process holds. While the model dreams for one, the other one is prepared. More
would only wait in this process, and occupy the places of other inspections."""
_MAX_DELAY_S: Final = 5.0
_RETRY_FOR_S: Final = 120
"""Seconds during which an inspection is retried after failures that it did not cause. If such a failure occurs later,
the inspection fails with its code."""
_RELEASE_S: Final = 5.0
"""Maximum seconds to release the other inspections before the process ends."""
_BLOCK: Final = 4096
"""Minimum number of bytes that a file occupies on a disk."""
_NO_IMAGE_CODES: Final = {"unsupported_format", "empty"}
_NO_IMAGE: Final = "The data is not an image in a supported format. Send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."


@dataclass(frozen=True, slots=True)
class _SourceImage:
    """The bytes of an image, and its validators.

    The validators are its digest and what its source sent to identify this version (ETag and Last-Modified).
    """

    data: bytes
    validators: Validators


class InspectionPipeline:
    """Claims and processes inspections under one owner name. It is not thread-safe."""

    def __init__(self, stores: Stores, detector: Detector, fetcher: Fetcher, owner: str) -> None:
        """Start the thread that renews leases. The other threads and the sandbox processes are started on first use.

        :param owner: the owner name of the claims. No other pipeline must ever use the same name.
        """
        settings = stores.settings
        self.finished = FinishedWork()
        self._settings, self._db, self._owner = settings, stores.db, owner
        self._blobs, self._identity = stores.blobs, stores.identity
        self._detector, self._fetcher, self._notifications = detector, fetcher, Publisher(settings.redis)
        worker = settings.worker
        self._sandboxes = [Sandbox(worker.child_memory_bytes, worker.child_timeout_s) for _ in range(_SANDBOXES)]
        self._free: SimpleQueue[Sandbox] = SimpleQueue()
        for sandbox in self._sandboxes:
            self._free.put(sandbox)
        self._dreamer: Dreamer | None = None
        # These threads live as long as the pipeline because a sandbox process is killed when the
        # thread that started it ends.
        self._sandbox_threads = ThreadPoolExecutor(_SANDBOXES, thread_name_prefix="sandbox")
        self._sandboxing, self._describing = threading.Semaphore(_SANDBOXES), threading.Semaphore(_SANDBOXES)
        self._detecting, self._dreaming = threading.Semaphore(1), threading.Semaphore(1)
        # A sandbox ends its child by itself, so this limit is never reached.
        self._sandbox_limit_s = worker.hard_limit_s + 2 * SOLO_DEATHS_ALLOWED * worker.child_timeout_s
        self._dreams: set[Lease] = set()
        self._due_at = 0.0
        self._changed = threading.Event()
        lease_s = settings.inspect.lease_s
        self._running = LeaseKeeper(
            lambda leases: jobs.renew(self._db, owner, leases, lease_s), lease_s, self._replace_process, set_busy=self.finished.set_busy
        )

    def run(self, publish_wakeup: Callable[[], object], seconds: float) -> bool:  # noqa: ARG002 -- see the docstring
        """Claim and start inspections until none is running, or until ``seconds`` have passed.

        Inspections that are still running after this time continue in their threads. So this process can claim more
        inspections in its next task, even while a slow source delays some of the running inspections.

        :param publish_wakeup: not used, because one process has enough threads for all inspections.
        :param seconds: the time in seconds after which nothing more is claimed.
        :returns: True if the time was over and an inspection is running, queued, or about to be retried.
        :raises ShelfsightError: when inspections could not be claimed.
        """
        inspect = self._settings.inspect
        until = time.monotonic() + seconds
        self._identity.check()
        try:
            while time.monotonic() < until:
                self._changed.clear()
                room = inspect.at_once - len(self._running.leases())
                for job in self._claim(room) if room else []:
                    attempt = Attempt(job, self._running, self._settings.worker.hard_limit_s)
                    name = f"inspect-{job.id[:6]}"
                    threading.Thread(target=self._run, args=(attempt,), name=name, daemon=True).start()
                if not self._running.leases() and time.monotonic() > self._due_at:
                    return False
                self._changed.wait(_POLL_S)
        except SystemExit:  # this process is being stopped
            self._release_running()
            raise
        return bool(self._running.leases()) or time.monotonic() < self._due_at or jobs.has_claimable(self._db)

    def _claim(self, room: int) -> list[Job]:
        """Claim inspections, none while the queue is paused. Dreams that would only wait in this process stay queued.

        No wakeup is published for them. Another process that is running claims them by itself, as this process does
        when one of its dreams has ended, and a process that is idle gets the wakeup of a request or of the sweep.
        """
        queue = pauses.read_state(self._db, INSPECTIONS)
        if queue.is_paused:
            return []
        lease_s, max_dreams = self._settings.inspect.lease_s, _MAX_DREAMS - len(self._dreams)
        claimed = jobs.claim(self._db, self._owner, room, lease_s, max_dreams=max_dreams, resumed_at=queue.resumed_at)
        self._dreams |= {job.lease for job in claimed if job.has_dream}
        return claimed

    def stop(self) -> None:
        """Release the running inspections, and kill the sandbox processes."""
        self._running.stop()
        self._release_running()
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandbox_threads.shutdown(wait=False, cancel_futures=True)

    def _release_running(self) -> None:
        with suppress(ShelfsightError):  # if the release fails, the leases will expire
            jobs.release(self._db, self._owner, self._running.leases())

    def _run(self, attempt: Attempt) -> None:
        job = attempt.job
        try:
            self._inspect(attempt)
        except Exception:  # noqa: BLE001 -- the thread must not end with an error; the lease will expire
            _log.exception("the outcome of inspection %s could not be stored because of an unexpected error", job.id)
        finally:
            self._running.drop([job.lease])
            self._dreams.discard(job.lease)
            self._changed.set()

    def _inspect(self, attempt: Attempt) -> None:
        """Process one inspection, and store its result or its error.

        A failure can also be caused by the environment or by the limit on concurrent fetches. If the inspection is
        then younger than ``_RETRY_FOR_S`` seconds, no error is stored. Instead, the inspection is released for a retry.
        """
        inspect, job = self._settings.inspect, attempt.job
        outcome = self._outcome(attempt)
        age_s = attempt.age_s
        if isinstance(outcome, Busy | Environment) and age_s < _RETRY_FOR_S:
            _log.info("an inspection was released and will be retried: %s", outcome.code, exc_info=outcome.__cause__)
            # The delay increases with each retry, so that a failing source or disk is not tried too often. The delay is
            # partly random, so that inspections do not all retry at the same time.
            delay_s = min(_MAX_DELAY_S, 0.3 + age_s / 4) * random.uniform(0.7, 1.3)
            jobs.release(self._db, self._owner, [job.lease], delay_s)
            # run() waits for the retry, because no wakeup is published for it.
            self._due_at = max(self._due_at, time.monotonic() + delay_s + _POLL_S)
            return
        if isinstance(outcome, ShelfsightError):
            ended = jobs.fail(self._db, self._owner, job, outcome, failed_s=inspect.failed_s, keep_s=inspect.keep_s)
        else:
            result, validators = outcome
            ended = jobs.finish(
                self._db, self._owner, job, result, validators, fresh_s=inspect.fresh_s, keep_s=inspect.keep_s
            )
        if ended:
            self.finished.add()
            self._delete_upload(job)
        self._notifications.publish(job.id)

    def _outcome(self, attempt: Attempt) -> tuple[str, Validators] | ShelfsightError:
        """Process an inspection. Return the id of its result and the validators of its source, or the error."""
        try:
            return self._process(attempt)
        except VisionError as error:
            return NotAnImage(_NO_IMAGE) if error.code in _NO_IMAGE_CODES else BadPicture(error.detail, code=error.code)
        except ShelfsightError as error:
            return error
        except Exception:  # noqa: BLE001 -- report an error to the client, and process the next inspection
            _log.exception("inspection %s failed because of an unexpected error", attempt.job.id)
            return ShelfsightError("An internal error occurred while the image was processed. Retry later.")

    def _process(self, attempt: Attempt) -> tuple[str, Validators]:
        """Find the stored result of an inspection, or process the image and store a new result.

        :returns: the id of the result, and the validators to send with the next request to the source.
        """
        job = attempt.job
        known = job.validators if job.source.sha256 is None else Validators(job.source.sha256)
        if known is not None and not self._has_result(job, known.sha256):
            known = None  # the bytes are needed, because the result was removed or another model is in use
        if known is not None and job.source.url is None:
            return self._result_id(job, known.sha256), known
        image = self._fetch(job.source.url, known) if job.source.url is not None else self._read_upload(job)
        if image.validators is not known and not self._has_result(job, image.validators.sha256):
            self._make_result(attempt, image)
        return self._result_id(job, image.validators.sha256), image.validators

    def _fetch(self, url: str, known: Validators | None) -> _SourceImage:
        """Fetch the image at a URL.

        :param known: the validators of the stored version of the image, if there is one. They are sent, so that the
            source can answer that the image has not changed.
        :returns: the bytes and their validators. If the source answered that the image has not changed, the bytes are
            empty and the validators are ``known``.
        """
        fetched = self._fetcher.fetch(
            url,
            max_bytes=self._settings.inspect.max_source_bytes,
            etag=known.etag if known else None,
            last_modified=known.last_modified if known else None,
            validators_url=known.url if known else None,
            is_image=lambda head: sniff(head) is not None,
        )
        if fetched.not_modified and known is not None:
            return _SourceImage(b"", known)
        digest = hashlib.sha256(fetched.data).hexdigest()
        return _SourceImage(fetched.data, Validators(digest, fetched.url, fetched.etag, fetched.last_modified))

    def _read_upload(self, job: Job) -> _SourceImage:
        try:
            data = self._blobs.read(incoming_key(job.id))
        except BlobMissing:
            self._identity.check()  # raises an error if the whole blob store is missing, not only these bytes
            raise BadPicture(
                "The uploaded bytes of this image are no longer stored; send the image again.", code="bytes_missing"
            ) from None
        return _SourceImage(data, Validators(hashlib.sha256(data).hexdigest()))

    def _delete_upload(self, job: Job) -> None:
        if job.source.url is None:
            with suppress(ShelfsightError):  # if this fails, the sweep will delete the upload
                self._blobs.delete(incoming_key(job.id))

    def _has_result(self, job: Job, sha256: str) -> bool:
        return results.use(self._db, self._result_id(job, sha256)) is not None

    def _result_id(self, job: Job, sha256: str) -> str:
        return results.result_id(sha256, job.recipe, None if isinstance(job.recipe, Augment) else self._detector.info)

    def _make_result(self, attempt: Attempt, image: _SourceImage) -> None:
        """Process an image as its recipe specifies, and store the result.

        :raises VisionError: when the image itself is at fault.
        """
        job = attempt.job
        inspected = (
            self._augment(attempt, image.data, job.recipe)
            if isinstance(job.recipe, Augment)
            else self._describe(attempt, image.data, job.recipe.dream)
        )
        folder = uuid.uuid4().hex
        self._blobs.write_many([(inspection_key(folder, name), [jpeg]) for name, jpeg in inspected.files.items()])
        fields = inspected.fields | {"sha256": image.validators.sha256, "files": sorted(inspected.files)}
        size = sum(max(_BLOCK, len(jpeg)) for jpeg in inspected.files.values())
        stored = results.store(self._db, self._result_id(job, image.validators.sha256), fields, folder, size)
        if stored != folder:  # another thread or process stored the result first, or the result is being removed
            self._blobs.delete_tree(inspection_prefix(folder))
        if stored is None:
            raise StoreAway("Old files of this inspection are being removed. Retry later.", code="blobs_unavailable")

    def _augment(self, attempt: Attempt, data: bytes, recipe: Augment) -> ImageDescription:
        request = requests.AugmentImage(data, recipe.names, recipe.seed, self._settings.limits.max_pixels)
        return self._run_in_sandbox(attempt, request)

    def _describe(self, attempt: Attempt, data: bytes, dream: Dream | None) -> ImageDescription:
        with attempt.turn(self._describing):  # bounds memory use, because a decoded image can take 150 MB
            request = requests.DescribeImage(data, self._settings.limits.max_pixels)
            inspected = self._run_in_sandbox(attempt, request)
            with attempt.turn(self._detecting):
                detections: list[dict[str, Any]] = self._detector.predict([inspected.rgb])[0]
            inspected.rgb = imaging.resize_for_display(inspected.rgb)
        inspected.fields |= {"detections": detections, "model": self._detector.info}
        if dream is not None:
            inspected.files[DREAM] = imaging.encode_jpeg(self._dream(attempt, inspected.rgb, dream))
            inspected.fields["effect"] = {"name": DREAM, "layer": dream.layer, "strength": dream.strength}
        return inspected

    def _run_in_sandbox(self, attempt: Attempt, request: "requests.Request[ImageDescription]") -> ImageDescription:
        """Execute a request in a free sandbox process, and return its result.

        :raises VisionError: when the image itself is at fault.
        """

        def execute() -> ImageDescription:
            sandbox = self._free.get()
            try:
                return sandbox.run(request)
            finally:
                self._free.put(sandbox)

        with attempt.turn(self._sandboxing, self._sandbox_limit_s):
            return self._sandbox_threads.submit(execute).result()

    def _dream(self, attempt: Attempt, rgb: Rgb, dream: Dream) -> Rgb:
        vision = self._settings.vision
        with attempt.turn(self._dreaming):
            # The dreamer is loaded on first use, because it takes memory and most installations never use it.
            if self._dreamer is None:
                self._dreamer = Dreamer(vision.model, device=vision.device, threads=vision.threads)
            return self._dreamer.dream(rgb, dream.layer, dream.strength)

    def _replace_process(self, hanging: Collection[Lease]) -> None:
        """End this process, because a step of an inspection exceeded the hard time limit.

        It is not possible to end only the thread of that inspection. The other inspections are released first, so that
        the end of the process does not count as one of their attempts. The pool then starts a new process.

        :param hanging: the leases of the inspections that exceeded the limit. These leases expire.
        """
        _log.critical("a step of an inspection exceeded the hard time limit, so this process ends and is replaced")
        try:
            with pymongo.timeout(_RELEASE_S):
                jobs.release(self._db, self._owner, [held for held in self._running.leases() if held not in hanging])
        except ShelfsightError as error:
            _log.warning("the other inspections could not be released: %s", error.code)
        finally:
            os._exit(1)
