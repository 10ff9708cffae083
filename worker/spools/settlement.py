"""Settle spools: make sure that every original of a closed batch is stored under its own key, then delete the spool.

The worker that closes a batch settles its spool at once. The sweep settles the spools that a crash has left. Two
processes may settle the same spool at the same time.
"""

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from time import monotonic
from typing import Final

from shared import failpoints
from shared.bootstrap import Stores
from shared.errors import ShelfsightError
from shared.ledger import settlement
from shared.ledger.settlement import Closed
from shared.ledger.shown_results import shown_fence
from shared.states import TERMINAL
from shared.storage.blob_keys import spool_key
from shared.storage.mongo import Document
from worker.spools import originals
from worker.spools.publication import publish
from worker.spools.restoration import NotFinished, restore

_log = logging.getLogger("shelfsight.error")
_AT_ONCE: Final = 250
_BYTES_AT_ONCE: Final = 16 << 20
"""Each part whose originals are restored needs two linearizable reads, which take about as long as 50 files (measured)."""
_LEAST_BYTES: Final = 256 << 10
"""What the smallest original counts for ``_BYTES_AT_ONCE``, because each file costs a few accesses to the disk."""


@dataclass(slots=True)
class _Part:
    """Successive images of a batch. ``verified`` are the ids of those whose originals nobody had verified before.

    It has at most ``_AT_ONCE`` images, and those that are verified or ``damaged`` have about ``_BYTES_AT_ONCE`` together.
    """

    images: list[Document] = field(default_factory=list)
    damaged: list[Document] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    is_last: bool = False


def settle(stores: Stores, batch_ids: Collection[str], until: float = math.inf) -> set[str]:
    """Publish the variants of closed batches, and delete their spools if all their originals are stored.

    A missing or damaged original is first restored from the spool. If that fails, or if a batch has no image documents,
    its spool is kept permanently. Such a spool also contains the bytes of images of the batch that were deleted singly; only
    the deletion of the whole batch deletes it. Batches with an image that is not terminal, or that are not closed, are skipped. An
    error in one batch is logged, and the other batches are settled.

    :param until: time limit, in ``time.monotonic`` seconds. It is looked at after each part of a batch, so at least one part is
        settled. The next call continues after it.
    :returns: the ids of the batches whose spools need no further work, whether they were deleted or kept.
    :raises ShelfsightError: when the database does not respond, or the blob store does not belong to it.
    """
    stores.identity.check()
    batches = settlement.read_closed(stores.db, batch_ids)  # before the images, so that a reprocessing since then is noticed
    settled: set[str] = set()
    without_lost_claims: set[str] = set()
    without_images = {batch_id for batch_id, batch in batches.items() if _is_new(batch)}
    for batch_id, images in _read(stores, batches):
        without_images.discard(batch_id)
        try:
            if _settle(stores, batch_id, batches[batch_id], images, until):
                without_lost_claims.add(batch_id)
            settled.add(batch_id)
        except NotFinished:
            pass
        except ShelfsightError as error:
            _log.warning("the spool of batch %s was not settled: %s", batch_id, error.code, exc_info=error)
        if monotonic() > until:
            break
    settled |= {batch_id for batch_id in without_images if _is_without_images(stores, batch_id)}
    settlement.record_settled(stores.db, {batch_id: batches[batch_id].generation for batch_id in settled}, without_lost_claims)
    return settled


def _is_new(batch: Closed) -> bool:
    """Return whether a batch was processed once, and its settlement has not begun as far as is known."""
    return batch.generation == batch.settled_to == 0


def _read(stores: Stores, batches: Mapping[str, Closed]) -> Iterator[tuple[str, Iterator[Document]]]:
    """Iterate over batches, each with its images that are left to be settled. New batches are read with one query."""
    new = [batch_id for batch_id, batch in batches.items() if _is_new(batch)]
    if new:
        yield from groupby(settlement.read_images(stores.db, new), key=lambda image: str(image["batch_id"]))
    for batch_id in batches.keys() - set(new):
        yield batch_id, _read_rest(stores, batch_id, batches[batch_id])


def _read_rest(stores: Stores, batch_id: str, batch: Closed) -> Iterator[Document]:
    """Iterate over the images that are left of a batch that is not new.

    If its spool has been deleted, all originals were stored before the last reprocessing.
    """
    has_spool = batch.generation == 0 or stores.blobs.stat(spool_key(batch_id)) is not None
    if not has_spool:
        stores.identity.check()  # raises an error if the whole blob store is missing, not only this spool
    yield from settlement.read_rest(stores.db, batch_id, batch, has_spool=has_spool)


def _settle(stores: Stores, batch_id: str, batch: Closed, images: Iterator[Document], until: float) -> bool:
    """Settle the spool of one batch, and return whether no image may have files of lost claims.

    The images are read one after the other, because a batch can have very many.
    """
    is_swept = _is_new(batch)
    is_last = False
    while not is_last:
        part = _take(stores, images)
        is_last = part.is_last
        is_swept = is_swept and not any(map(settlement.has_lost_claims, part.images))
        _publish(stores, batch, part)
        is_damaged = not _secure(stores, batch_id, part)
        failpoints.reach("9-part-settled")
        batch = replace(batch, settled_to=part.images[-1]["index"] + 1 if part.images else batch.settled_to, is_damaged=batch.is_damaged or is_damaged)
        if not is_last and monotonic() > until:
            settlement.record_settled_to(stores.db, batch_id, batch)
            raise NotFinished
    if not batch.is_damaged:
        failpoints.reach("9-before-spool-delete")
        stores.blobs.delete(spool_key(batch_id))
    return is_swept


def _take(stores: Stores, images: Iterator[Document]) -> _Part:
    """Return the next images of a batch, and check their originals."""
    part, size = _Part(), 0
    for image in images:
        if image["status"] not in TERMINAL:
            raise NotFinished
        part.images.append(image)
        has_record = bool(image["work"].get("stored"))
        is_stored = _is_stored(stores, image)
        if not is_stored:
            part.damaged.append(image)
        elif not has_record:
            part.verified.append(image["_id"])
        if not (is_stored and has_record):
            size += max(image["file_size"], _LEAST_BYTES)
        if len(part.images) >= _AT_ONCE or size >= _BYTES_AT_ONCE:
            return part
    part.is_last = True
    return part


def _is_stored(stores: Stores, image: Document) -> bool:
    """Return whether the original of an image is stored.

    If it has been verified before, only its length is checked here.
    """
    check = originals.has_right_size if image["work"].get("stored") else originals.is_intact
    return bool(originals.attempt(image, lambda: check(stores.blobs, image)))


def _publish(stores: Stores, batch: Closed, part: _Part) -> None:
    """Publish what is shown of images, in case a worker died before it published its results.

    A batch that is reprocessed for the first time from now on is settled and swept again, so its newer results are published then.
    """
    fences = {image["_id"]: fence for image in part.images if (fence := shown_fence(image)) is not None}
    publish(stores, fences, may_be_newer=bool(batch.generation))


def _secure(stores: Stores, batch_id: str, part: _Part) -> bool:
    """Restore the damaged originals of images, record whose originals are stored now, and return whether all are."""
    restored, is_complete = restore(stores, batch_id, part.damaged) if part.damaged else (set(), True)
    settlement.record_stored(stores.db, restored.union(part.verified))
    return is_complete


def _is_without_images(stores: Stores, batch_id: str) -> bool:
    """Return whether a batch exists but has no image documents, and report that."""
    if settlement.has_images(stores.db, batch_id) or not settlement.is_kept(stores.db, batch_id):
        return False
    _log.critical("batch %s has no image documents; its spool is kept, because it can be the only copy of the images", batch_id)
    return True
