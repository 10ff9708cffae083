"""The way of one claim: read, keep the originals, look, write what was made, store the results, close.

Pictures go through in groups (of eight on a CPU, fewer large ones), so that memory stays bounded and what is done is done. While the model looks
at one group of a claim as a batch, threads decode the next one, and draw, encode, write and store what was made of the one before. While the
last group is looked at, the next claim is taken, read and kept, and its first group decoded: never earlier, because other workers may be
free. A picture that is to be tried alone goes all the way through the helper process, and nothing else is looked at meanwhile: what goes wrong
then is its own fault.
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
from shared.storage.blob_keys import image_prefix, original_key, spool_key, variant_key
from shared.storage.blobs import BlobMissing
from shared.storage.mongo import Document
from worker.images.stages import Decoded, Fault, Loaded, Looking, Seen
from worker.runtime.lease_keeper import Lease
from worker.vision.detection.detect import Detector
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage

_log = logging.getLogger("shelfsight.error")
_LAST_S: Final = 5.0
"""How long what was broken off waits for the results that are being stored."""


@dataclass(slots=True)
class Taken:
    """A claim whose originals stand under their own names, in groups. Without images there was nothing to claim.

    ``begun`` is the first of them, being decoded, unless that is a picture to be tried alone.
    """

    claim: claims.Claim
    groups: list[list[Loaded]]
    begun: Future[Decoded] | None = None

    @property
    def alone(self) -> bool:
        """Whether it is one picture that is to be tried alone: such a one is claimed by itself."""
        return len(self.claim.images) == 1 and bool(self.claim.images[0]["work"]["solo"])


class Pipeline:
    """Does the work of claims for one owner. Not for several threads at once."""

    def __init__(self, stores: Stores, detector: Detector, owner: str) -> None:
        """Work for one owner of claims."""
        self._settings, self._db, self._blobs, self._identity = stores.settings, stores.db, stores.blobs, stores.identity
        self._detector, self._owner = detector, owner
        self._lease = Lease(stores.db, owner, stores.settings.worker.lease_s)
        self._taker = ThreadPoolExecutor(1, thread_name_prefix="take")
        self._begin_to_look()

    def _begin_to_look(self) -> None:
        self._looking = Looking(self._settings, self._detector, self._lease.holds)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def work_off(self, ring: Callable[[], object], seconds: float) -> bool:
        """Claim and work until nothing is claimable or the time is over.

        :param ring: called when there is likely more than one worker can do.
        :param seconds: after this long no further claim is begun.
        :returns: True when the time was over and more is likely waiting.
        :raises ShelfsightError: nothing could be claimed or kept.
        """
        until = time.monotonic() + seconds

        def take() -> Taken:
            taken = self.take()
            if taken.claim.full:
                ring()
            return taken

        ahead: Future[Taken] | None = self._taker.submit(take)

        def take_ahead() -> None:
            nonlocal ahead
            if time.monotonic() < until:
                ahead = self._taker.submit(take)

        try:
            while ahead is not None:
                taken, ahead = ahead.result(), None
                if not taken.claim.images:
                    return False
                self.work(taken, take_ahead)
                if taken.alone:
                    take_ahead()
        finally:
            if ahead is not None:  # the work ended early; nobody will come for these
                self._return(ahead)
        return True

    def take(self) -> Taken:
        """Claim the next images, begin to keep their leases, and keep their originals."""
        self._identity.check()
        worker = self._settings.worker
        claim = claims.claim(self._db, self._owner, worker.claim_size, worker.lease_s)
        self._lease.hold(claim.images, worker.hard_limit_s)
        if claim.images:
            failpoints.reach("4-claimed")
        try:
            loaded = self._keep(claim.images)
        except BaseException as error:
            code = error.code if isinstance(error, ShelfsightError) else type(error).__name__
            self._give_back(claim.images, code)
            raise
        looking = self._looking
        try:
            taken = Taken(claim, looking.groups(loaded))
        except Exception as error:  # a fault of ours over one of the pictures
            self._give_back(claim.images, type(error).__name__, solo=True, fault=True)
            raise
        if taken.groups and not taken.alone:
            try:
                taken.begun = looking.begin(taken.groups[0])
            except RuntimeError:  # the work before it has been broken off meanwhile
                self._give_back(claim.images, "not_begun", delay=False)
                raise
        return taken

    def work(self, taken: Taken, at_last_group: Callable[[], None] = lambda: None) -> None:
        """Do a claim's work, as far as its time goes; the rest is given back.

        What the environment does not let finish never counts. Where something else goes wrong each image is tried alone next,
        and counts when it was alone already.

        :param at_last_group: called when the last pictures are about to be looked at, unless they are tried alone.
        """
        claim = taken.claim
        left = {image["_id"]: image for image in claim.images}
        try:
            self._store(self._look(taken, at_last_group), left)
        except Environment as error:
            _log.warning("claim given back: %s", error.code, exc_info=error)
            self._give_back(left.values(), error.code)
        except SoftTimeLimitExceeded:
            self._give_back(left.values(), "time_limit", delay=False, solo=True)
            self._start_afresh()
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is, the images go back and the next claim is worked on
            _log.exception("claim given back")
            self._give_back(left.values(), type(error).__name__, solo=True, fault=True)
        except BaseException as error:  # told to stop
            self._give_back(left.values(), type(error).__name__, delay=False)
            raise
        else:
            self._give_back(left.values(), "time_over", delay=False)
        finally:
            self._lease.drop(claim.images)
        self._close(claim)

    def stop(self) -> None:
        """End the helper and the threads."""
        self._taker.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._looking.end()

    def _start_afresh(self) -> None:
        """Leave behind what took too long: it may go on for as long again, and what comes next must not wait for it."""
        looking, writer = self._looking, self._writer
        self._begin_to_look()
        writer.shutdown(wait=False, cancel_futures=True)
        looking.end()

    def _keep(self, images: list[Document]) -> list[Loaded]:
        """Read the originals and keep each under its own name, before anything looks at it."""
        loaded = [self._load(image) for image in images]
        missing = [one for one in loaded if one.data and self._blobs.stat(_original(one.image)) is None]
        self._blobs.write_many([(_original(one.image), [one.data]) for one in missing])
        failpoints.reach("5-original-kept")
        return loaded

    def _load(self, image: Document) -> Loaded:
        for key, offset in ((spool_key(batch_of(image["_id"])), image["work"]["offset"]), (_original(image), 0)):
            try:
                data = self._blobs.read(key, offset, image["file_size"])
            except BlobMissing:
                continue
            if hashlib.sha256(data).hexdigest() == image["sha256"]:
                return Loaded(image, data)
        if not self._lease.holds(image):
            return Loaded(image, error=("lease_lost", ""))
        self._identity.check()  # else the store is missing, and not these bytes
        _log.critical("bytes of an accepted image are missing: %s", image["_id"])
        return Loaded(image, error=("bytes_missing", "The stored bytes of this image cannot be found."))

    def _look(self, taken: Taken, at_last_group: Callable[[], None]) -> Iterator[Seen]:
        """Look at pictures, group by group; when half of the time limit is over no further group is begun."""
        until = time.monotonic() + self._settings.worker.soft_limit_s / 2
        if taken.alone:
            yield self._looking.alone(taken.groups[0][0])
            return
        begun, taken.begun = taken.begun, None  # so that nothing keeps what it gives when that has been looked at
        following = iter(taken.groups[1:])
        while begun is not None:
            decoded, begun = begun.result(), None
            group = next(following, None)
            if group is None:
                at_last_group()
            elif time.monotonic() < until:
                begun = self._looking.begin(group)
            yield self._looking.detect(decoded)

    def _done(self, image: Document, made: PreparedImage) -> Result:
        model = self._detector.info if image["work"]["detect"] else None
        return Result(image["_id"], image["work"]["fence"], made.fields | {"model": model})

    def _store(self, groups: Iterator[Seen], left: dict[str, Document]) -> None:
        """Write the files and store the results of each group while the next is looked at.

        :param left: the images that have no result yet; each goes when its result stands.
        """
        writing: Future[set[str]] | None = None
        try:
            for group in groups:
                if writing is not None:
                    _without(left, writing.result())
                writing = self._writer.submit(self._write, group)
        except BaseException:
            with suppress(Exception):  # what broke it off is said, not what came of it; a late result is refused by its fence
                _without(left, writing.result(_LAST_S) if writing is not None else set())
            raise
        if writing is not None:
            _without(left, writing.result())

    def _write(self, group: Seen) -> set[str]:
        items: list[tuple[str, list[Any]]] = []
        ended = [_failed(image, fault) for image, fault in group.failed]
        for image, job in group.making:
            try:
                made = job.result()
            except VisionError as error:  # of one that is tried alone
                ended.append(_failed(image, (error.code, error.detail)))
                continue
            ended.append(self._done(image, made))
            if self._lease.holds(image):
                items += [(variant_key(image["_id"], image["work"]["fence"], name), [data]) for name, data in made.files.items()]
        self._blobs.write_many(items)
        failpoints.reach("5-variants-written")
        mine = [result for result in ended if self._lease.still(result.image_id, result.fence)]
        failpoints.reach("6-before-finish")
        stored = results.finish(self._db, self._owner, mine)
        failpoints.reach("6-finished")
        self._publish([result for result in mine if result.image_id in stored and result.error is None])
        return stored

    def _publish(self, done: list[Result]) -> None:
        """Let a plain file server find what was made of images. Their results stand: no failure here may touch them or the claim."""
        try:
            for result in done:
                self._blobs.publish(image_prefix(result.image_id), str(result.fence))
        except Exception as error:  # noqa: BLE001 -- until the sweep has done it the web answers for these
            _log.warning("not published: %s", type(error).__name__, exc_info=error)

    def _return(self, ahead: Future[Taken]) -> None:
        """Give back a claim that was taken ahead and will not be worked on."""
        try:
            taken = ahead.result(self._settings.worker.lease_s)
        except Exception as error:  # noqa: BLE001 -- it gave its images back itself, or their lease ends
            _log.warning("a claim taken ahead failed: %s", type(error).__name__)
            return
        self._give_back(taken.claim.images, "not_begun", delay=False)
        if taken.begun is not None and not taken.begun.cancel():
            self._start_afresh()

    def _give_back(
        self, images: Iterable[Document], reason: str, *, delay: bool = True, solo: bool = False, fault: bool = False
    ) -> None:
        given = list(images)
        self._lease.drop(given)
        held = [(image["_id"], image["work"]["fence"]) for image in given]
        try:
            claims.release(self._db, held, self._owner, reason, delay=delay, solo=solo, fault=fault)
        except Environment:
            return  # the lease ends by itself

    def _close(self, claim: claims.Claim) -> None:
        failpoints.reach("7-before-close")
        try:
            results.close_batches(self._db, {image["batch_id"] for image in claim.images})
        except Environment:
            return  # the sweep does it


def _failed(image: Document, error: Fault) -> Result:
    return Result(image["_id"], image["work"]["fence"], {"model": None}, error)


def _without(left: dict[str, Document], stored: set[str]) -> None:
    for image_id in stored:
        left.pop(image_id, None)


def _original(image: Document) -> str:
    return original_key(image["_id"], image["work"]["ext"])
