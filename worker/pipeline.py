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

from shared import faultpoints
from shared.blobs import BlobMissing, BlobStore
from shared.bond import Bond
from shared.errors import Environment, ShelfsightError
from shared.ids import batch_of
from shared.layout import image_prefix, original_key, spool_key, variant_key
from shared.ledger import claims, results
from shared.ledger.results import Result
from shared.mongo import Db, Document
from shared.settings import Settings
from shared.states import SOLO_DEATHS_ALLOWED
from worker.isolate import Finish, Isolate, Look
from worker.lease import Lease
from worker.vision import imaging, look
from worker.vision.detect import Detector
from worker.vision.errors import CODES, VisionError
from worker.vision.look import Prepared

_log = logging.getLogger("shelfsight.error")
_PIXELS_EACH: Final = 3_100_000
"""For each picture that the model takes at once: most pixels of a group. On a CPU this is 75 MB decoded, two pictures of 12 megapixels. A picture with more is a
group of its own. Three groups are under way at the most; a thread that draws takes up to five times its picture's own bytes beside that (grain)."""
_MOST_PIXELS: Final = 64_000_000
"""Of a group, however many pictures the model takes."""
_LAST_S: Final = 5.0
"""How long what was broken off waits for the results that are being stored."""


@dataclass(slots=True)
class Taken:
    """A claim whose originals stand under their own names, in groups. Without images there was nothing to claim.

    ``begun`` is the first of them, being decoded, unless that is a picture to be tried alone.
    """

    claim: claims.Claim
    groups: list[list["Loaded"]]
    begun: "Future[Decoded] | None" = None

    @property
    def alone(self) -> bool:
        """Whether it is one picture that is to be tried alone: such a one is claimed by itself."""
        return len(self.claim.images) == 1 and bool(self.claim.images[0]["work"]["solo"])


@dataclass(slots=True)
class Loaded:
    """A claimed image with the bytes of its original, or the fault that it has already."""

    image: Document
    data: bytes = b""
    error: tuple[str, str] | None = None


@dataclass(slots=True)
class Decoded:
    """What became of a group before the model: pictures that are ready for it, and results of those that never will be."""

    prepared: list[tuple[Document, Prepared]]
    failed: list[Result]


@dataclass(slots=True)
class Seen:
    """What became of a group after the model: results, and pictures that threads or the helper still draw and encode."""

    failed: list[Result]
    making: list[tuple[Document, Future[Prepared]]]


class Pipeline:
    """Does the work of claims for one owner. Not for several threads at once."""

    def __init__(self, settings: Settings, db: Db, blobs: BlobStore, detector: Detector, owner: str) -> None:
        """Take what the work needs."""
        self._settings, self._db, self._blobs, self._detector, self._owner = settings, db, blobs, detector, owner
        self._bond = Bond(db, blobs)
        self._lease = Lease(db, owner, settings.worker.lease_s)
        self._taker = ThreadPoolExecutor(1, thread_name_prefix="take")
        self._begin_to_look()

    def _begin_to_look(self) -> None:
        worker, vision = self._settings.worker, self._settings.vision
        self._isolate = Isolate(worker.child_memory_bytes, worker.child_timeout_s)
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")  # the one thread that asks the helper
        self._threads = ThreadPoolExecutor(vision.threads, thread_name_prefix="look")
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
        self._bond.check()
        worker = self._settings.worker
        claim = claims.claim(self._db, self._owner, worker.claim_size, worker.lease_s)
        self._lease.hold(claim.images, worker.hard_limit_s)
        if claim.images:
            faultpoints.reach("4-claimed")
        try:
            loaded = self._keep(claim.images)
        except BaseException as error:
            code = error.code if isinstance(error, ShelfsightError) else type(error).__name__
            self._give_back(claim.images, code)
            raise
        try:
            taken = Taken(claim, self._groups(loaded))
        except Exception as error:  # a fault of ours over one of the pictures
            self._give_back(claim.images, type(error).__name__, solo=True, fault=True)
            raise
        if taken.groups and not taken.alone:
            taken.begun = self._decoder.submit(self._decode, taken.groups[0])
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
        _end(self._isolate, self._decoder, self._threads, self._writer)

    def _start_afresh(self) -> None:
        """Leave behind what took too long: it may go on for as long again, and what comes next must not wait for it."""
        left = (self._isolate, self._decoder, self._threads, self._writer)
        self._begin_to_look()
        _end(*left)

    def _keep(self, images: list[Document]) -> list[Loaded]:
        """Read the originals and keep each under its own name, before anything looks at it."""
        loaded = [self._load(image) for image in images]
        missing = [one for one in loaded if one.data and self._blobs.stat(_original(one.image)) is None]
        self._blobs.write_many([(_original(one.image), [one.data]) for one in missing])
        faultpoints.reach("5-original-kept")
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
        self._bond.check()  # else the store is missing, and not these bytes
        _log.critical("bytes of an accepted image are missing: %s", image["_id"])
        return Loaded(image, error=("bytes_missing", "The stored bytes of this image cannot be found."))

    def _look(self, taken: Taken, at_last_group: Callable[[], None]) -> Iterator[Seen]:
        """Look at pictures, group by group; when half of the time limit is over no further group is begun."""
        until = time.monotonic() + self._settings.worker.soft_limit_s / 2
        if taken.alone:
            yield self._alone(taken.groups[0][0])
            return
        begun, taken.begun = taken.begun, None  # so that nothing keeps what it gives when that has been looked at
        following = iter(taken.groups[1:])
        while begun is not None:
            decoded, begun = begun.result(), None
            group = next(following, None)
            if group is None:
                at_last_group()
            elif time.monotonic() < until:
                begun = self._decoder.submit(self._decode, group)
            yield self._detect(decoded)

    def _groups(self, loaded: list[Loaded]) -> list[list[Loaded]]:
        """Divide pictures into what is decoded at once: as many as the model takes together, and no more pixels than are affordable."""
        groups: list[list[Loaded]] = []
        most, pixels = min(_MOST_PIXELS, self._detector.batch * _PIXELS_EACH), 0
        for one in loaded:
            more = imaging.pixels(one.data) or self._settings.limits.max_pixels
            if not groups or len(groups[-1]) == self._detector.batch or pixels + more > most:
                groups.append([])
                pixels = 0
            groups[-1].append(one)
            pixels += more
        return groups

    def _alone(self, one: Loaded) -> Seen:
        image = one.image
        if not self._lease.holds(image):
            return Seen([], [])
        error = one.error
        if error is None and image["work"]["faults"] >= SOLO_DEATHS_ALLOWED:
            error = ("decoder_crash", CODES["decoder_crash"])
        if error is not None:
            return Seen([_failed(image, error)], [])
        prepared = self._decoder.submit(self._prepare, one, here=False).result()
        if not isinstance(prepared, Prepared):
            return Seen([_failed(image, prepared)], [])
        found = self._detector.predict([prepared.rgb])[0] if image["work"]["detect"] else []
        return Seen([], [(image, self._decoder.submit(self._isolate.do, Finish(prepared, found, image["work"]["augmentations"])))])

    def _decode(self, group: list[Loaded]) -> Decoded:
        """Make pictures ready for the model, and let their bytes go."""
        held = [one for one in group if self._lease.holds(one.image)]
        jobs: list[Future[Prepared | tuple[str, str]] | None] = []
        for one in held:
            plain = not one.image["work"]["solo"] and imaging.is_plain_jpeg(one.data, max_pixels=self._settings.limits.max_pixels)
            jobs.append(self._threads.submit(self._prepare, one, here=True) if plain and one.error is None else None)
        # The suspicious ones meanwhile, one after the other in the helper.
        others = {at: one.error or self._prepare(one, here=False) for at, one in enumerate(held) if jobs[at] is None}
        decoded = Decoded([], [])
        for at, (one, job) in enumerate(zip(held, jobs, strict=True)):
            outcome = others[at] if job is None else job.result()
            if isinstance(outcome, Prepared):
                decoded.prepared.append((one.image, outcome))
            else:
                decoded.failed.append(_failed(one.image, outcome))
            one.data = b""
        return decoded

    def _prepare(self, one: Loaded, *, here: bool) -> Prepared | tuple[str, str]:
        image_id, declared = one.image["_id"], one.image["barcode"]
        max_pixels = self._settings.limits.max_pixels
        if not self._lease.holds(one.image):  # the claim was broken off meanwhile
            return "lease_lost", ""
        faultpoints.reach(f"5-looking:{image_id}")
        try:
            if here:
                picture = imaging.decode(one.data, max_pixels=max_pixels)
                return look.prepare(picture, image_id=image_id, declared=declared)
            return self._isolate.do(Look(one.data, image_id, declared, max_pixels))
        except VisionError as error:
            return error.code, error.detail

    def _detect(self, decoded: Decoded) -> Seen:
        asked = [(image["_id"], one.rgb) for image, one in decoded.prepared if image["work"]["detect"]]
        found = dict(zip((name for name, _ in asked), self._detector.predict([rgb for _, rgb in asked]), strict=True))
        making = [
            (image, self._threads.submit(look.finish, one, found.get(image["_id"], []), image["work"]["augmentations"], self._detector.device))
            for image, one in decoded.prepared
        ]
        return Seen(decoded.failed, making)

    def _done(self, image: Document, made: Prepared) -> Result:
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
        ended = list(group.failed)
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
        faultpoints.reach("5-variants-written")
        mine = [result for result in ended if self._lease.still(result.image_id, result.fence)]
        faultpoints.reach("6-before-finish")
        stored = results.finish(self._db, self._owner, mine)
        faultpoints.reach("6-finished")
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
        faultpoints.reach("7-before-close")
        try:
            results.close_batches(self._db, {image["batch_id"] for image in claim.images})
        except Environment:
            return  # the sweep does it


def _end(helper: Isolate, *executors: ThreadPoolExecutor) -> None:
    """Drop what waits; whoever waits for the helper is told that it is gone."""
    for executor in executors:
        executor.shutdown(wait=False, cancel_futures=True)
    helper.close()


def _failed(image: Document, error: tuple[str, str]) -> Result:
    return Result(image["_id"], image["work"]["fence"], {"model": None}, error)


def _without(left: dict[str, Document], stored: set[str]) -> None:
    for image_id in stored:
        left.pop(image_id, None)


def _original(image: Document) -> str:
    return original_key(image["_id"], image["work"]["ext"])
