"""The work behind the work_queue of inspections: fetch, look, keep, answer.

Each inspection goes its whole way in a thread of its own, so one whose source is slow holds up nobody. What they share they take in turn:
the helper processes, in which strangers' pictures are decoded and worked on, the model, and the dreamer.
"""

import hashlib
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

from shared.bootstrap import Stores
from shared.errors import BadPicture, Busy, Environment, NotAnImage, ShelfsightError, StoreAway
from shared.fetch.client import Fetcher
from shared.inspections import jobs, results
from shared.inspections.jobs import Job, Seen
from shared.inspections.notifications import Publisher
from shared.inspections.recipes import Augment, Dream
from shared.storage.blob_keys import incoming_key, inspection_key, inspection_prefix
from shared.storage.blobs import BlobMissing
from shared.variants import DREAM
from worker.sandbox import parent, requests
from worker.vision import imaging
from worker.vision.describe import ImageDescription
from worker.vision.detection.detect import Detector
from worker.vision.dream import Dreamer
from worker.vision.errors import VisionError
from worker.vision.imaging import Rgb

_log = logging.getLogger("shelfsight.error")
_LOOK_AGAIN_S: Final = 0.05
_HELPERS: Final = 2
"""While the answer of one is dealt with, the other one is busy."""
_LONGEST_DELAY_S: Final = 5.0
_PATIENCE_S: Final = 120
"""So long an inspection is tried again for reasons that are not its own; then it fails with the last one."""
_BLOCK: Final = 4096
"""Least bytes that a file takes on a disk."""
_NO_PICTURE: Final = {"unsupported_format", "empty"}


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A picture as it was sent, and what its source said about it."""

    data: bytes
    seen: Seen


class Inspections:
    """Works on inspections for one owner. Not for several threads at once."""

    def __init__(self, stores: Stores, detector: Detector, fetcher: Fetcher, owner: str) -> None:
        """Work for one owner of claims."""
        settings = stores.settings
        self._settings, self._db, self._blobs, self._identity, self._owner = settings, stores.db, stores.blobs, stores.identity, owner
        self._detector, self._fetcher, self._notifications = detector, fetcher, Publisher(settings.redis)
        worker = settings.worker
        self._helpers = [parent.Sandbox(worker.child_memory_bytes, worker.child_timeout_s) for _ in range(_HELPERS)]
        self._free: SimpleQueue[parent.Sandbox] = SimpleQueue()
        for helper in self._helpers:
            self._free.put(helper)
        self._dreamer: Dreamer | None = None
        self._helping = ThreadPoolExecutor(_HELPERS, thread_name_prefix="helper")  # they stay: a helper ends with the thread that started it
        self._looking = threading.Semaphore(_HELPERS)
        self._seeing, self._dreaming = threading.Lock(), threading.Lock()
        self._stopped = threading.Event()
        self._running: dict[tuple[str, int], tuple[Job, float]] = {}
        """What goes on, by id and fence, and since when (monotonic)."""
        self._due_at = 0.0
        self._changed = threading.Event()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def work_off(self, ring: Callable[[], object], seconds: float) -> bool:  # noqa: ARG002 -- one process has threads enough
        """Claim inspections while any goes on, or until the time is over.

        Those that go on then go on by themselves, so a slow source keeps nobody from being claimed.

        :returns: True when the time was over, and something goes on or waits.
        :raises ShelfsightError: nothing could be claimed.
        """
        inspect = self._settings.inspect
        until = time.monotonic() + seconds
        self._identity.check()
        try:
            while time.monotonic() < until:
                self._changed.clear()
                room = inspect.at_once - len(self._running)
                for job in jobs.claim(self._db, self._owner, room, inspect.lease_s) if room else []:
                    self._running[job.id, job.fence] = (job, time.monotonic())
                    threading.Thread(target=self._run, args=(job,), name=f"inspect-{job.id[:6]}", daemon=True).start()
                if not self._running and time.monotonic() > self._due_at:
                    return False
                self._changed.wait(_LOOK_AGAIN_S)
        except SystemExit:  # told to stop
            self._give_back()
            raise
        return bool(self._running) or time.monotonic() < self._due_at or jobs.has_claimable(self._db)

    def stop(self) -> None:
        """Give back what is being worked on; end the helpers."""
        self._stopped.set()
        self._give_back()
        for helper in self._helpers:
            helper.close()
        self._helping.shutdown(wait=False, cancel_futures=True)

    def _give_back(self) -> None:
        with suppress(ShelfsightError):  # their leases end by themselves
            jobs.give_back(self._db, self._owner, [job for job, _ in list(self._running.values())])

    def _keep(self) -> None:
        """Renew the leases of what goes on, at a third of their length. Where something hangs, end the process: threads cannot be ended."""
        lease_s = self._settings.inspect.lease_s
        while not self._stopped.wait(lease_s / 3):
            going = list(self._running.values())
            if any(time.monotonic() - began > self._settings.worker.hard_limit_s for _, began in going):
                _log.critical("an inspection hangs; this process is replaced")
                os._exit(1)
            if going:
                with suppress(ShelfsightError):  # the database is away: the fence decides at the end
                    jobs.renew(self._db, self._owner, [job for job, _ in going], lease_s)

    def _run(self, job: Job) -> None:
        try:
            self._inspect(job)
        except Exception:  # noqa: BLE001 -- its lease ends by itself
            _log.exception("inspection %s", job.id)
        finally:
            del self._running[job.id, job.fence]
            self._changed.set()

    def _inspect(self, job: Job) -> None:
        """Bring one inspection to its end, or give it back when something but itself is in the way."""
        inspect = self._settings.inspect
        found = self._outcome(job)
        if isinstance(found, Busy | Environment) and job.asked_for_s < _PATIENCE_S:
            _log.info("inspection given back: %s", found.code, exc_info=found.__cause__)
            # Later each time: the source, or the disk, has had its chance a moment ago. At different moments, lest all come together.
            delay_s = min(_LONGEST_DELAY_S, 0.3 + job.asked_for_s / 4) * random.uniform(0.7, 1.3)
            jobs.give_back(self._db, self._owner, [job], delay_s)
            self._due_at = max(self._due_at, time.monotonic() + delay_s + _LOOK_AGAIN_S)  # nobody will ring for it
            return
        if isinstance(found, ShelfsightError):
            ended = jobs.fail(self._db, self._owner, job, found, failed_s=inspect.failed_s, keep_s=inspect.keep_s)
        else:
            result, seen = found
            ended = jobs.finish(self._db, self._owner, job, result, seen, fresh_s=inspect.fresh_s, keep_s=inspect.keep_s)
        if ended:
            self._forget_upload(job)
        self._notifications.publish(job.id)

    def _outcome(self, job: Job) -> tuple[str, Seen] | ShelfsightError:
        """Give the name of the result and what the source said; or why there is none."""
        try:
            return self._answer(job)
        except VisionError as error:
            return NotAnImage(_NOT_READ) if error.code in _NO_PICTURE else BadPicture(error.detail, code=error.code)
        except ShelfsightError as error:
            return error
        except Exception:  # noqa: BLE001 -- whoever asked is told, and the next one is worked on
            _log.exception("inspection %s", job.id)
            return ShelfsightError("Something went wrong here while the picture was looked at.")

    def _answer(self, job: Job) -> tuple[str, Seen]:
        """Find the result of an inspection or make it.

        :returns: its name; and what the source said, for the next time.
        """
        known = job.seen if job.source.sha256 is None else Seen(job.source.sha256)
        if known is not None and not self._has(job, known.sha256):
            known = None  # it has been removed, or another model looks now: the bytes are needed
        if known is not None and job.source.url is None:
            return self._result(job, known.sha256), known
        got = self._fetched(job.source.url, known) if job.source.url is not None else self._handed_over(job)
        if got.seen is not known and not self._has(job, got.seen.sha256):
            self._make(job, got)
        return self._result(job, got.seen.sha256), got.seen

    def _fetched(self, url: str, known: Seen | None) -> _Bytes:
        """Fetch a picture, or ask whether what is known of it is still right.

        :returns: what is known, without bytes, where its source says so.
        """
        etag, modified = (known.etag, known.last_modified) if known else (None, None)
        validators_url = known.url if known else None
        fetched = self._fetcher.fetch(url, max_bytes=self._settings.inspect.max_source_bytes, etag=etag, last_modified=modified, validators_url=validators_url)
        if fetched.not_modified and known is not None:
            return _Bytes(b"", known)
        return _Bytes(fetched.data, Seen(hashlib.sha256(fetched.data).hexdigest(), fetched.url, fetched.etag, fetched.last_modified))

    def _handed_over(self, job: Job) -> _Bytes:
        try:
            data = self._blobs.read(incoming_key(job.id))
        except BlobMissing:
            self._identity.check()  # else the store is missing, and not these bytes
            raise BadPicture("The bytes of this picture are no longer here: send it again.", code="bytes_missing") from None
        return _Bytes(data, Seen(hashlib.sha256(data).hexdigest()))

    def _forget_upload(self, job: Job) -> None:
        if job.source.url is None:
            with suppress(ShelfsightError):  # the sweep does it
                self._blobs.delete(incoming_key(job.id))

    def _has(self, job: Job, sha256: str) -> bool:
        return results.use(self._db, self._result(job, sha256)) is not None

    def _result(self, job: Job, sha256: str) -> str:
        return results.result_id(sha256, job.recipe, None if isinstance(job.recipe, Augment) else self._detector.info)

    def _make(self, job: Job, got: _Bytes) -> None:
        """Make what the recipe says, and keep it.

        :raises VisionError: the picture's own fault.
        """
        made = self._augmented(got.data, job.recipe) if isinstance(job.recipe, Augment) else self._described(got.data, job.recipe.dream)
        folder = uuid.uuid4().hex
        self._blobs.write_many([(inspection_key(folder, name), [jpeg]) for name, jpeg in made.files.items()])
        fields = made.fields | {"sha256": got.seen.sha256, "files": sorted(made.files)}
        size = sum(max(_BLOCK, len(jpeg)) for jpeg in made.files.values())
        kept = results.keep(self._db, self._result(job, got.seen.sha256), fields, folder, size)
        if kept != folder:  # somebody was faster; or it is being removed
            self._blobs.delete_tree(inspection_prefix(folder))
        if kept is None:
            raise StoreAway("The pictures of this inspection are being cleared away just now.", code="blobs_unavailable")

    def _augmented(self, data: bytes, recipe: Augment) -> ImageDescription:
        return self._isolated(requests.AugmentImage(data, recipe.names, recipe.seed, self._settings.limits.max_pixels))

    def _described(self, data: bytes, dream: Dream | None) -> ImageDescription:
        with self._looking:  # a decoded picture may have 150 MB
            made = self._isolated(requests.DescribeImage(data, self._settings.limits.max_pixels))
            with self._seeing:
                detections: list[dict[str, Any]] = self._detector.predict([made.rgb])[0]
            made.rgb = imaging.resize_for_display(made.rgb)
        made.fields |= {"detections": detections, "model": self._detector.info}
        if dream is not None:
            made.files[DREAM] = imaging.encode_jpeg(self._dream(made.rgb, dream))
            made.fields["effect"] = {"name": DREAM, "layer": dream.layer, "strength": dream.strength}
        return made

    def _isolated(self, request: "requests.Request[ImageDescription]") -> ImageDescription:
        """Let a helper do it.

        :raises VisionError: the picture's own fault.
        """

        def do() -> ImageDescription:
            helper = self._free.get()
            try:
                return helper.run(request)
            finally:
                self._free.put(helper)

        return self._helping.submit(do).result()

    def _dream(self, rgb: Rgb, dream: Dream) -> Rgb:
        vision = self._settings.vision
        with self._dreaming:
            if self._dreamer is None:  # it takes memory, and most deployments never ask for it
                self._dreamer = Dreamer(vision.model, device=vision.device, threads=vision.threads)
            return self._dreamer.dream(rgb, dream.layer, dream.strength)


_NOT_READ: Final = "This is no picture in a format that is read here: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."
