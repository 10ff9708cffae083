"""Processing of claimed images: store originals, decode, detect, write variants, store results, close batches.

Images are processed in groups (of eight on a CPU, fewer large ones), so that memory stays bounded and results are
stored early. While the model runs on one group of a claim, threads decode the next group, and draw, encode, write and
store the previous one. While the model runs on the last group, the next claim is taken, its originals are stored and
its first group is decoded: not earlier, because another worker may be free. An image that must be tried alone is
processed entirely in the sandbox process, and no other image is processed meanwhile: a failure is then its own fault.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from celery.exceptions import SoftTimeLimitExceeded

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import Environment, ShelfsightError
from shared.ids import batch_of
from shared.ledger import claims, results
from shared.ledger.results import Result
from shared.queue.leases import Lease
from shared.storage.blob_keys import image_prefix, original_key, spool_key, variant_key
from shared.storage.blobs import BlobMissing
from shared.storage.mongo import Document
from worker.images.stages import DecodedGroup, DetectedGroup, Fault, ImageStages, LoadedImage
from worker.runtime.lease_keeper import LeaseKeeper
from worker.vision.detection.detect import Detector
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage

_log = logging.getLogger("shelfsight.error")
_ABORT_WAIT_S: Final = 5.0
"""How long an aborted claim waits for the results that are being stored."""


@dataclass(slots=True)
class LoadedClaim:
    """A claim whose originals are stored under their own keys, in groups. Without images nothing was claimable.

    ``first_group`` is being decoded; None for an image that must be tried alone.
    """

    claim: claims.Claim
    groups: list[list[LoadedImage]]
    first_group: Future[DecodedGroup] | None = None

    @property
    def is_solo(self) -> bool:
        """Whether it is one image that must be tried alone: such an image is claimed alone."""
        return len(self.claim.images) == 1 and bool(self.claim.images[0]["work"]["solo"])


class ImagePipeline:
    """Processes the claims of one owner. Not safe for use by several threads."""

    def __init__(self, stores: Stores, detector: Detector, owner: str) -> None:
        """Start the threads.

        :param owner: of the claims: a name that no other pipeline ever has.
        """
        self._settings, self._db = stores.settings, stores.db
        self._blobs, self._identity = stores.blobs, stores.identity
        self._detector, self._owner = detector, owner
        lease_s = stores.settings.worker.lease_s
        self._leases = LeaseKeeper(lambda leases: claims.renew(self._db, leases, owner, lease_s), lease_s)
        self._claimer = ThreadPoolExecutor(1, thread_name_prefix="claim")
        self._start_stages()

    def _start_stages(self) -> None:
        self._stages = ImageStages(self._settings, self._detector, self._is_held)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def run(self, publish_wakeup: Callable[[], object], seconds: float) -> bool:
        """Claim and process images until none is claimable or the time is over.

        :param publish_wakeup: called when there is probably more work than this worker can do.
        :param seconds: after this time no further claim is started.
        :returns: True when the time was over and more images are probably claimable.
        :raises ShelfsightError: nothing could be claimed, or no original could be stored.
        """
        until = time.monotonic() + seconds

        def claim_next() -> LoadedClaim:
            loaded = self.claim_next()
            if loaded.claim.full:
                publish_wakeup()
            return loaded

        ahead: Future[LoadedClaim] | None = self._claimer.submit(claim_next)

        def claim_ahead() -> None:
            nonlocal ahead
            if time.monotonic() < until:
                ahead = self._claimer.submit(claim_next)

        try:
            while ahead is not None:
                loaded, ahead = ahead.result(), None
                if not loaded.claim.images:
                    return False
                self.process(loaded, claim_ahead)
                if loaded.is_solo:
                    claim_ahead()
        finally:
            if ahead is not None:  # processing ended early, so this claim will not be processed
                self._release_ahead(ahead)
        return True

    def claim_next(self) -> LoadedClaim:
        """Claim the next images, start to renew their leases, and store their originals.

        :raises ShelfsightError: nothing could be claimed, or the originals could not be stored; what was claimed is
            released.
        :raises RuntimeError: after ``stop``, and when the stages were replaced meanwhile; what was claimed is released.
        """
        self._identity.check()
        worker = self._settings.worker
        claim = claims.claim(self._db, self._owner, worker.claim_size, worker.lease_s)
        self._leases.hold(claim.leases, worker.hard_limit_s)
        if claim.images:
            failpoints.reach("4-claimed")
        try:
            images = self._store_originals(claim.images)
        except BaseException as error:
            code = error.code if isinstance(error, ShelfsightError) else type(error).__name__
            self._release(claim.images, code)
            raise
        stages = self._stages
        try:
            loaded = LoadedClaim(claim, stages.split(images))
        except Exception as error:  # an error of this program, caused by one of the images
            self._release(claim.images, type(error).__name__, solo=True, fault=True)
            raise
        if loaded.groups and not loaded.is_solo:
            try:
                loaded.first_group = stages.start_decoding(loaded.groups[0])
            except RuntimeError:  # the claim before it was aborted meanwhile
                self._release(claim.images, "not_begun", delay=False)
                raise
        return loaded

    def process(self, loaded: LoadedClaim, at_last_group: Callable[[], None] = lambda: None) -> None:
        """Process a claim as far as its time allows, and release the rest.

        What the environment prevents is never counted against an image. After any other failure each image is tried
        alone next, and the failure is counted when the image was tried alone already.

        :param at_last_group: called before detection of the last group, unless the image is tried alone.
        """
        claim = loaded.claim
        left = {image["_id"]: image for image in claim.images}
        try:
            self._write_groups(self._detect_groups(loaded, at_last_group), left)
        except Environment as error:
            _log.warning("claim released: %s", error.code, exc_info=error)
            self._release(left.values(), error.code)
        except SoftTimeLimitExceeded:
            self._release(left.values(), "time_limit", delay=False, solo=True)
            self._replace_stages()
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is, the images are released and the next claim is processed
            _log.exception("claim released")
            self._release(left.values(), type(error).__name__, solo=True, fault=True)
        except BaseException as error:  # the process stops
            self._release(left.values(), type(error).__name__, delay=False)
            raise
        else:
            self._release(left.values(), "time_over", delay=False)
        finally:
            self._leases.drop(claim.leases)
        self._close_batches(claim)

    def stop(self) -> None:
        """End the threads and the sandbox process."""
        self._leases.stop()
        self._claimer.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._stages.close()

    def _is_held(self, image: Document) -> bool:
        return self._leases.holds(claims.LEASES.lease(image))

    def _replace_stages(self) -> None:
        """Continue with new threads: the old ones may take as long again, and the next claim must not wait for them."""
        stages, writer = self._stages, self._writer
        self._start_stages()
        writer.shutdown(wait=False, cancel_futures=True)
        stages.close()

    def _store_originals(self, images: list[Document]) -> list[LoadedImage]:
        """Read the originals and store each under its own key, before any of them is decoded."""
        loaded = [self._load(image) for image in images]
        missing = [
            original for original in loaded if original.data and self._blobs.stat(_original_key(original.image)) is None
        ]
        self._blobs.write_many([(_original_key(original.image), [original.data]) for original in missing])
        failpoints.reach("5-original-kept")
        return loaded

    def _load(self, image: Document) -> LoadedImage:
        for key, offset in ((spool_key(batch_of(image["_id"])), image["work"]["offset"]), (_original_key(image), 0)):
            try:
                data = self._blobs.read(key, offset, image["file_size"])
            except BlobMissing:
                continue
            if hashlib.sha256(data).hexdigest() == image["sha256"]:
                return LoadedImage(image, data)
        if not self._is_held(image):
            return LoadedImage(image, fault=("lease_lost", ""))
        self._identity.check()  # raises if the whole blob store is missing instead of these bytes
        _log.critical("bytes of an accepted image are missing: %s", image["_id"])
        return LoadedImage(image, fault=("bytes_missing", "The stored bytes of this image cannot be found."))

    def _detect_groups(self, loaded: LoadedClaim, at_last_group: Callable[[], None]) -> Iterator[DetectedGroup]:
        """Decode and detect, group by group; after half of the time limit no further group is started."""
        until = time.monotonic() + self._settings.worker.soft_limit_s / 2
        if loaded.is_solo:
            yield self._stages.process_solo(loaded.groups[0][0])
            return
        # The claim must not keep a reference to the decoded group, which would keep it in memory after detection.
        decoding, loaded.first_group = loaded.first_group, None
        following = iter(loaded.groups[1:])
        while decoding is not None:
            decoded, decoding = decoding.result(), None
            group = next(following, None)
            if group is None:
                at_last_group()
            elif time.monotonic() < until:
                decoding = self._stages.start_decoding(group)
            yield self._stages.detect(decoded)

    def _write_groups(self, groups: Iterator[DetectedGroup], left: dict[str, Document]) -> None:
        """Write the files and store the results of each group while the next one is processed.

        :param left: the images that have no result yet; each is removed when its result is stored.
        """
        writing: Future[set[str]] | None = None
        try:
            for group in groups:
                if writing is not None:
                    _remove(left, writing.result())
                writing = self._writer.submit(self._write_group, group)
        except BaseException:
            # The reason for the abort is raised, not its consequences. A late result is refused by its fence.
            with suppress(Exception):
                _remove(left, writing.result(_ABORT_WAIT_S) if writing is not None else set())
            raise
        if writing is not None:
            _remove(left, writing.result())

    def _write_group(self, group: DetectedGroup) -> set[str]:
        """Write the files of a group and store its results.

        :returns: ids of the images whose result is stored.
        """
        files: list[tuple[str, list[Any]]] = []
        group_results = [_failure(image, fault) for image, fault in group.failed]
        for image, finishing in group.finishing:
            try:
                prepared = finishing.result()
            except VisionError as error:  # of an image that is tried alone
                group_results.append(_failure(image, (error.code, error.detail)))
                continue
            group_results.append(self._success(image, prepared))
            if self._is_held(image):
                fence = image["work"]["fence"]
                files += [(variant_key(image["_id"], fence, name), [data]) for name, data in prepared.files.items()]
        self._blobs.write_many(files)
        failpoints.reach("5-variants-written")
        held = [result for result in group_results if self._leases.holds(Lease(result.image_id, result.fence))]
        failpoints.reach("6-before-finish")
        stored = results.finish(self._db, self._owner, held)
        failpoints.reach("6-finished")
        self._publish([result for result in held if result.image_id in stored and result.error is None])
        return stored

    def _success(self, image: Document, prepared: PreparedImage) -> Result:
        model = self._detector.info if image["work"]["detect"] else None
        return Result(image["_id"], image["work"]["fence"], prepared.fields | {"model": model})

    def _publish(self, done: list[Result]) -> None:
        """Link the variants of images for a plain file server.

        Their results are stored already: no failure here may affect them or the claim.
        """
        try:
            for result in done:
                self._blobs.publish(image_prefix(result.image_id), str(result.fence))
        except Exception as error:  # noqa: BLE001 -- until the sweep has published them the web process serves them
            _log.warning("variants not published: %s", type(error).__name__, exc_info=error)

    def _release_ahead(self, ahead: Future[LoadedClaim]) -> None:
        """Release a claim that was taken ahead and will not be processed."""
        try:
            loaded = ahead.result(self._settings.worker.lease_s)
        except Exception as error:  # noqa: BLE001 -- it released its images itself, or their leases end
            _log.warning("a claim taken ahead failed: %s", type(error).__name__)
            return
        self._release(loaded.claim.images, "not_begun", delay=False)
        if loaded.first_group is not None and not loaded.first_group.cancel():
            self._replace_stages()

    def _release(
        self, images: Iterable[Document], reason: str, *, delay: bool = True, solo: bool = False, fault: bool = False
    ) -> None:
        leases = [claims.LEASES.lease(image) for image in images]
        self._leases.drop(leases)
        try:
            claims.release(self._db, leases, self._owner, reason, delay=delay, solo=solo, fault=fault)
        except Environment:
            return  # the leases end by themselves

    def _close_batches(self, claim: claims.Claim) -> None:
        failpoints.reach("7-before-close")
        try:
            results.close_batches(self._db, {image["batch_id"] for image in claim.images})
        except Environment:
            return  # the sweep does it


def _failure(image: Document, fault: Fault) -> Result:
    return Result(image["_id"], image["work"]["fence"], {"model": None}, fault)


def _remove(left: dict[str, Document], stored: set[str]) -> None:
    for image_id in stored:
        left.pop(image_id, None)


def _original_key(image: Document) -> str:
    return original_key(image["_id"], image["work"]["ext"])
