"""Process claimed images: store originals, decode, detect, write variants, store results, and close batches.

Images are processed in groups, so that memory use stays bounded and results are stored early. On a CPU, a group has
eight images, or fewer if they are large. While the model runs on one group of a claim, threads decode the next group
and draw, encode, write, and store the previous group. While the model runs on the last group, the next images are
claimed, their originals are stored, and the first group of the new claim is decoded. Nothing is claimed earlier than
that, because another worker may be free to process those images.

An image must be tried alone if it had no result when its previous claim ended because the worker died, a time limit
passed, or a bug occurred. Then all steps except detection are executed in the sandbox process. No other image is
processed at the same time, so any failure is caused by this image. ``shared.states`` says how many failures are
allowed.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import Environment, ShelfsightError
from shared.ledger import claims
from shared.queue import pauses
from shared.queues import IMAGES
from shared.storage.mongo import Document
from worker.images.attempt_times import AttemptTimes
from worker.images.claim_end import ClaimEnd
from worker.images.claim_size import ClaimSize
from worker.images.file_writer import FileWriter
from worker.images.group_writer import GroupWriter
from worker.images.original_loader import OriginalLoader
from worker.images.stages import DetectedGroup, ImageStages, LoadedClaim
from worker.runtime.finished_work import FinishedWork
from worker.runtime.lease_keeper import LeaseKeeper
from worker.sandbox.parent import SandboxKilled
from worker.spools.settler import Settler
from worker.vision.detection.detect import Detector

_log = logging.getLogger("shelfsight.error")
_ABORT_WAIT_S: Final = 5.0
"""Seconds that an aborted task waits for a group whose results are being stored, and for the claim ahead. It waits at
most for a quarter of the time that it has left until the hard time limit."""


@dataclass(slots=True)
class _ClaimAhead:
    """A claim that a thread makes and loads while the main thread processes the previous one.

    ``claimed`` is set when the claim has been made. If the main thread sets ``abandoned``, nobody will process the
    claim.
    """

    loading: Future[LoadedClaim] = field(init=False)
    claimed: claims.Claim | None = None
    abandoned: bool = False


class ImagePipeline:
    """Claims and processes images under one owner name. It is not thread-safe."""

    def __init__(self, stores: Stores, detector: Detector, owner: str) -> None:
        """Start the threads that renew leases and settle spools. All other threads are started on first use.

        :param owner: the owner name of the claims. No other pipeline must ever use the same name.
        """
        self._settings, self._db = stores.settings, stores.db
        self._identity, self._detector, self._owner = stores.identity, detector, owner
        self.finished = FinishedWork()
        lease_s = stores.settings.worker.lease_s
        self._leases = LeaseKeeper(lambda leases: claims.renew(self._db, owner, leases, lease_s), lease_s, set_busy=self.finished.set_busy)
        self._settler, self._times = Settler(stores), AttemptTimes()
        self._claim_end = ClaimEnd(stores, owner, self._leases, self._times, self._settler)
        file_writer = FileWriter(stores, self._claim_end)
        self._loader = OriginalLoader(stores, owner, self._leases, self._times, self._claim_end, file_writer)
        self._group_writer = GroupWriter(stores, detector, owner, self._leases, self._times, file_writer)
        self._claim_size = ClaimSize(self._db, least=detector.batch_size, most=stores.settings.worker.claim_size)
        self._claimer = ThreadPoolExecutor(1, thread_name_prefix="claim")
        self._start_stages()

    def _start_stages(self) -> None:
        self._stages = ImageStages(self._settings, self._detector, self._is_held, self._times)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def run(self, publish_wakeup: Callable[[], object], seconds: float) -> bool:
        """Claim and process images until none is claimable or ``seconds`` have passed.

        :param publish_wakeup: called when there is probably more work than this worker can do.
        :param seconds: the time in seconds after which nothing more is claimed.
        :returns: True if the time ended first, so more images are probably claimable. False if none is claimable.
        :raises ShelfsightError: when images could not be claimed, or their originals could not be stored.
        """
        until = time.monotonic() + seconds
        ahead: _ClaimAhead | None = self._claim_ahead(publish_wakeup)

        def claim_ahead() -> None:
            nonlocal ahead
            if time.monotonic() < until:
                ahead = self._claim_ahead(publish_wakeup)

        try:
            while ahead is not None:
                loaded, ahead = ahead.loading.result(), None
                if not loaded.claim.images:
                    return False
                self.process(loaded, claim_ahead)
                if loaded.is_solo:
                    claim_ahead()
        except BaseException as error:
            if ahead is not None:
                self._abandon(ahead, is_hanging=isinstance(error, SoftTimeLimitExceeded))
            raise
        return True

    def _claim_ahead(self, publish_wakeup: Callable[[], object]) -> _ClaimAhead:
        ahead = _ClaimAhead()

        def claim_next() -> LoadedClaim:
            loaded = self.claim_next(ahead)
            if loaded.claim.full:
                publish_wakeup()
            return loaded

        ahead.loading = self._claimer.submit(claim_next)
        return ahead

    def claim_next(self, ahead: _ClaimAhead | None = None) -> LoadedClaim:
        """Claim the next images, start to renew their leases, store their originals, and start to decode them.

        While the queue is paused, the claim is empty.

        Whenever this method raises an error, the images that it has claimed are released.

        :param ahead: the state of the claim, if the main thread can abandon it.
        :raises ShelfsightError: when images could not be claimed, or their originals could not be stored.
        :raises RuntimeError: when ``stop`` was called, or the claim or the previous one was aborted during this call.
        """
        self._identity.check()
        if pauses.is_paused(self._db, IMAGES):
            return LoadedClaim(claims.Claim(self._owner, [], full=False))
        worker, ahead = self._settings.worker, ahead or _ClaimAhead()
        size = self._claim_size.choose()
        claim = claims.claim(self._db, self._owner, size, worker.lease_s, max_bytes=worker.claim_bytes)
        self._times.begin(claim.images)
        self._leases.hold(claim.leases, worker.hard_limit_s)
        ahead.claimed = claim
        if ahead.abandoned:
            self._claim_end.release(claim.images, "not_begun", delay=False)
            raise RuntimeError("the claim was abandoned")
        if claim.images:
            failpoints.reach("4-claimed")
        try:
            images = self._loader.load(claim.images)
        except BaseException as error:
            code = error.code if isinstance(error, ShelfsightError) else type(error).__name__
            self._claim_end.release(claim.images, code)
            raise
        claim = replace(claim, images=[original.image for original in images])
        loaded, stages = LoadedClaim(claim), self._stages
        if loaded.is_solo:  # only the sandbox looks at the content of this image
            loaded.groups = [images]
            return loaded
        try:
            loaded.groups = stages.split(images)
        except Exception as error:  # one of the images triggered a bug in this program
            self._claim_end.release(claim.images, type(error).__name__, solo=True)
            raise
        if loaded.groups:
            try:
                loaded.first_group = stages.start_decoding(loaded.groups[0])
            except RuntimeError:  # the previous claim was aborted, which closed these stages
                self._claim_end.release(claim.images, "not_begun", delay=False)
                raise
        return loaded

    def process(self, loaded: LoadedClaim, at_last_group: Callable[[], None] = lambda: None) -> None:
        """Process the images of a claim, and release those that have no result at the end or at the time limit.

        A failure caused by the environment never counts against an image. After any other failure, each unfinished
        image will be tried alone. But if the image was already being tried alone, the failure counts against it. The
        time limit counts, too, unless only the storage of its files and its result did not end.

        :param at_last_group: called before detection on the last group, so that the caller can claim the next images
            meanwhile. It is not called for an image that is tried alone.
        """
        claim = loaded.claim
        left = {image["_id"]: image for image in claim.images}
        try:
            self._write_groups(self._detect_groups(loaded, at_last_group), left)
        except SandboxKilled as error:  # perhaps because the image needs too much memory
            _log.warning("unfinished images were released because their sandbox process was killed")
            self._claim_end.release(left.values(), error.code, solo=True, loss=True)
        except Environment as error:
            _log.warning("unfinished images were released after an environment error: %s", error.code, exc_info=error)
            self._claim_end.release(left.values(), error.code)
        except SoftTimeLimitExceeded:
            self._claim_end.release(left.values(), "time_limit", delay=False, solo=True, fault=not loaded.is_processed)
            self._replace_stages()
            raise
        except Exception as error:  # noqa: BLE001 -- after any error, release the images and go on
            _log.exception("unfinished images were released after an unexpected error")
            is_fault = not _is_lack_of_threads(error)
            self._claim_end.release(left.values(), type(error).__name__, solo=is_fault, fault=is_fault)
        except BaseException as error:  # the process stops
            self._claim_end.release(left.values(), type(error).__name__, delay=False)
            raise
        else:
            self._claim_end.release(left.values(), "time_over", delay=False)
        finally:
            self._leases.drop(claim.leases)
            self._times.drop(claim.leases)
        self._claim_end.close_batches(claim)

    def stop(self) -> None:
        """Stop the threads and the sandbox process."""
        self._leases.stop()
        self._settler.stop()
        self._claimer.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._stages.close()

    def _is_held(self, image: Document) -> bool:
        return self._leases.holds(claims.LEASES.lease(image))

    @property
    def _abort_wait_s(self) -> float:
        worker = self._settings.worker
        return min(_ABORT_WAIT_S, (worker.hard_limit_s - worker.soft_limit_s) / 4)

    def _replace_stages(self) -> None:
        """Replace the threads that decode, finish, and write images.

        The old threads can stay busy for long, and the next claim must not wait for them.
        """
        stages, writer = self._stages, self._writer
        self._start_stages()
        writer.shutdown(wait=False, cancel_futures=True)
        stages.close()

    def _detect_groups(self, loaded: LoadedClaim, at_last_group: Callable[[], None]) -> Iterator[DetectedGroup]:
        """Decode the groups of a claim one after the other, and run the model on each of them.

        After half of the soft time limit, no further group is started.
        """
        until = time.monotonic() + self._settings.worker.soft_limit_s / 2
        if loaded.is_solo:
            loaded.detected = self._stages.process_solo(loaded.groups[0][0], self._begin_solo)
            yield loaded.detected
            return
        # Remove the reference from the claim, because it would keep the decoded group in memory after detection.
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
        """Write the files and store the results of each group while the next group is processed.

        :param left: the images that have no result yet, by id. An image is removed from ``left`` once its result is
            stored.
        """
        writing: Future[set[str]] | None = None
        try:
            for group in groups:
                if writing is not None:
                    self._remove(left, writing.result())
                writing = self._writer.submit(self._group_writer.write, group)
        except BaseException:
            # Raise the error that caused the abort, and ignore errors that follow from it. If the group
            # is stored too late, the fence prevents it from changing anything.
            with suppress(Exception):
                self._remove(left, writing.result(self._abort_wait_s) if writing is not None else set())
            raise
        if writing is not None:
            self._remove(left, writing.result())

    def _remove(self, left: dict[str, Document], stored: set[str]) -> None:
        self.finished.add(len(stored))
        for image_id in stored:
            left.pop(image_id, None)

    def _begin_solo(self, image: Document) -> bool:
        lease = claims.LEASES.lease(image)
        if claims.begin_solo(self._db, self._owner, lease):
            return True
        self._leases.drop([lease])
        return False

    def _abandon(self, ahead: _ClaimAhead, *, is_hanging: bool) -> None:
        """Release the images of a claim that was made in advance, because the processing of the previous one ended.

        :param is_hanging: whether the claim ahead may be what has exceeded the time limit.
        """
        try:
            loaded = ahead.loading.result(self._abort_wait_s)
        except TimeoutError:
            ahead.abandoned = True  # from now on, the thread itself releases what it claims
            if ahead.claimed is not None:
                reason = "time_limit" if is_hanging else "not_begun"
                self._claim_end.release(ahead.claimed.images, reason, delay=is_hanging, solo=is_hanging)
            self._claimer.shutdown(wait=False, cancel_futures=True)
            self._claimer = ThreadPoolExecutor(1, thread_name_prefix="claim")
            return
        except Exception as error:  # noqa: BLE001 -- claim_next has already released the images
            _log.warning("the next images could not be claimed in advance: %s", type(error).__name__)
            return
        self._claim_end.release(loaded.claim.images, "not_begun", delay=False)
        if loaded.first_group is not None and not loaded.first_group.cancel():
            self._replace_stages()


def _is_lack_of_threads(error: Exception) -> bool:
    """Return whether an error means that the machine has no thread left. Python has no type for it."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)
