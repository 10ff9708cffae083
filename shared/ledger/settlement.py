"""What remains to be done for a closed batch: its spool is deleted, and then the files of lost claims.

A batch has the field ``spooled`` until its spool is settled, and ``unswept`` until no files of lost claims are left. A
worker writes the files of an image into a folder named after the fence of its claim. If no image was claimed twice, or
cancelled after a claim, there are no files of lost claims, so a batch normally loses both fields in the same write. A reprocessing sets both fields again:
it leaves files of old results, and a worker that dies has not published those of the new ones.

The sweep does both in parts, in the order of the images, and stops when its time is over. ``settled_to`` and ``swept_to`` say with
which image it continues. They are valid for one generation. ``swept_generation`` is the last generation in which the batch was
swept as a whole, so that images that have not been queued since then are left out.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pymongo import UpdateMany

from shared.ledger import shown_results, sweep_claims
from shared.states import ImageState
from shared.storage.mongo import Db, Document, deadline, linearizable, majority, translate_errors
from shared.storage.schema import ENDED_STATES

_LEFT_AFTER_S: Final = 10
"""A batch that has been closed for this number of seconds and still has its spool was left by its worker."""
_CLOSED: Final = {"open": None, "deleting": None}
_FIELDS: Final = (
    "batch_id", "index", "file_size", "sha256", "work.ext", "work.offset", "work.stored", "error.code", *shown_results.FIELDS,
)  # fmt: skip
_BY_INDEX: Final = [("batch_id", 1), ("index", 1)]
_PER_ROUND_TRIP: Final = 1000
_KEPT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed batch, and how far its clean-up has come. Each reprocessing increases the generation.

    ``settled_to`` and ``swept_to`` are the indexes of the first images that are left. ``is_damaged`` says that an original before
    ``settled_to`` is missing or damaged and could not be restored. ``swept_generation`` is None if the batch was never swept as a whole.
    """

    generation: int
    settled_to: int = 0
    is_damaged: bool = False
    swept_to: int = 0
    swept_generation: int | None = None


def claim_unsettled(db: Db) -> str | None:
    """Claim a batch whose worker closed it and died before it deleted the spool (called by the sweep)."""
    return sweep_claims.claim_batch(
        db, {"spooled": True} | _CLOSED | sweep_claims.older_than("finished_at", _LEFT_AFTER_S)
    )


def claim_unswept(db: Db, longest_write_s: float) -> str | None:
    """Claim a closed batch that may have files of lost claims (called by the sweep).

    :param longest_write_s: seconds after which no worker writes files of a closed batch any more.
    """
    return sweep_claims.claim_batch(
        db, {"unswept": True} | _CLOSED | sweep_claims.older_than("finished_at", longest_write_s)
    )


def read_images(db: Db, batch_ids: Collection[str]) -> Iterator[Document]:
    """Iterate over the images of batches, one batch after the other, as a majority of the replica set has them.

    Images that are being deleted are left out: what remains of their bytes is deleted.

    The documents have only the fields that are needed to settle a spool.
    """
    return _read_images(db, {"batch_id": {"$in": list(batch_ids)}})


def read_rest(db: Db, batch_id: str, batch: Closed, *, has_spool: bool) -> Iterator[Document]:
    """Iterate over those images of one batch that are left to be settled, like ``read_images``.

    :param has_spool: if False, only images that the last reprocessing has queued, or whose originals nobody has verified, are left.
    """
    query: Document = {"batch_id": batch_id, "index": {"$gte": batch.settled_to}}
    if not has_spool:
        query["$or"] = [{"work.generation": batch.generation}, {"work.stored": {"$ne": True}}]
    return _read_images(db, query)


def _read_images(db: Db, query: Document) -> Iterator[Document]:
    images = majority(db, "images")
    with translate_errors():
        found = images.find(query | {"status": {"$ne": "deleting"}}, dict.fromkeys(_FIELDS, 1)).sort(_BY_INDEX)
        yield from found.batch_size(_PER_ROUND_TRIP)


def read_closed(db: Db, batch_ids: Collection[str], closed_for_s: float | None = None) -> dict[str, Closed]:
    """Return those of the batches that are closed.

    :param closed_for_s: leave out batches that were closed later than this number of seconds ago.
    """
    closed = _CLOSED if closed_for_s is None else _CLOSED | sweep_claims.older_than("finished_at", closed_for_s)
    fields = dict.fromkeys(("generation", "settled_to", "swept_to", "swept_generation"), 1)
    with translate_errors():
        found = db.batches.find({"_id": {"$in": list(batch_ids)}} | closed, fields)
        return {batch["_id"]: _closed(batch) for batch in found}


def _closed(batch: Document) -> Closed:
    generation: int = batch["generation"]
    settled, swept = (to if (to := batch.get(name, {})).get("generation") == generation else {} for name in ("settled_to", "swept_to"))
    return Closed(
        generation,
        settled_to=settled.get("index", 0),
        is_damaged=settled.get("is_damaged", False),
        swept_to=swept.get("index", 0),
        swept_generation=batch.get("swept_generation"),
    )


def read_reclaimed_images(db: Db, batch_id: str, batch: Closed) -> Iterator[Document]:
    """Iterate over the finished images of a batch that may have files of lost claims and are left to be swept, in their order.

    The documents have only the index, the state and the fences. No failover undoes what is returned.
    """
    images = majority(db, "images")
    lost = {"status": ImageState.CANCELLED.value, "work.fence": {"$gt": 0}}
    claimed_again = {"status": {"$in": ENDED_STATES}, "work.fence": {"$gt": 1}}
    query: Document = {"batch_id": batch_id, "index": {"$gte": batch.swept_to}, "$or": [claimed_again, lost]}
    if batch.swept_generation is not None:
        query["work.generation"] = {"$gt": batch.swept_generation}
    with translate_errors():
        found = images.find(query, dict.fromkeys(("index", *shown_results.FIELDS), 1)).sort(_BY_INDEX)
        yield from found.batch_size(_PER_ROUND_TRIP)


def has_lost_claims(image: Document) -> bool:
    """Return whether a finished image may have files of lost claims: it was claimed again, or its only claim had no result.

    :param image: a stored image with at least its state and its fence.
    """
    return bool(image["work"]["fence"] > (0 if image["status"] == ImageState.CANCELLED else 1))


def is_kept(db: Db, batch_id: str) -> bool:
    """Return whether a batch exists and is not being deleted.

    A deletion that a majority of the replica set has confirmed is always seen, even if the primary has just changed.

    :raises StoreAway: when a majority does not confirm the result within some seconds.
    """
    with deadline(_KEPT_S):
        found = linearizable(db).batches.find_one({"_id": batch_id}, {"deleting": 1})
    return found is not None and "deleting" not in found


def find_deleted(db: Db, image_ids: Collection[str]) -> set[str]:
    """Return those of ``image_ids`` that are being deleted or do not exist any more.

    After ``is_kept``, a deletion that a majority of the replica set has confirmed is seen, unless the primary changes
    between the two calls.
    """
    images = majority(db, "images")
    with translate_errors():
        kept = images.find({"_id": {"$in": list(image_ids)}, "status": {"$ne": "deleting"}}, {"_id": 1})
        return set(image_ids) - {image["_id"] for image in kept}


def has_images(db: Db, batch_id: str) -> bool:
    """Return whether any image document of a batch exists."""
    with translate_errors():
        return db.images.find_one({"batch_id": batch_id}, {"_id": 1}) is not None


def record_stored(db: Db, image_ids: Collection[str]) -> None:
    """Record that the originals of images are stored durably under their own keys, and that their bytes were verified."""
    if image_ids:
        with translate_errors():
            db.images.update_many({"_id": {"$in": list(image_ids)}}, {"$set": {"work.stored": True}})


def record_settled_to(db: Db, batch_id: str, batch: Closed) -> None:
    """Record that the images of a batch before ``settled_to`` are settled, and end the sweep's claim, so that a sweep continues.

    Nothing is recorded if the batch has been settled or reprocessed since it was read.
    """
    to = {"generation": batch.generation, "index": batch.settled_to, "is_damaged": batch.is_damaged}
    _record(db, {"_id": batch_id, "generation": batch.generation, "spooled": True}, {"$set": {"settled_to": to}, "$unset": sweep_claims.ENDED})


def record_settled(db: Db, generations: Mapping[str, int], without_lost_claims: Collection[str]) -> None:
    """Record that the spools of batches need no further work. Batches that have been reprocessed since are left.

    :param generations: the batches, with the generations that they had before their images were read.
    :param without_lost_claims: those of the batches of which no image may have files of lost claims.
    """
    groups: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
    for batch_id, generation in generations.items():
        groups[generation, batch_id in without_lost_claims].append(batch_id)
    updates = [
        UpdateMany(
            {"_id": {"$in": ids}, "generation": generation},
            {"$unset": {"spooled": "", "settled_to": ""} | ({"unswept": ""} if is_swept else {}) | sweep_claims.ENDED},
        )
        for (generation, is_swept), ids in groups.items()
    ]
    if updates:
        with translate_errors():
            db.batches.bulk_write(updates, ordered=False)


def record_swept_to(db: Db, batch_id: str, batch: Closed) -> None:
    """Record that the images of a batch before ``swept_to`` have no files of lost claims, as ``record_settled_to`` does."""
    to = {"generation": batch.generation, "index": batch.swept_to}
    _record(db, {"_id": batch_id, "generation": batch.generation, "unswept": True}, {"$set": {"swept_to": to}, "$unset": sweep_claims.ENDED})


def record_swept(db: Db, batch_id: str, generation: int) -> None:
    """Record that a batch has no files of lost claims any more, unless it has been reprocessed since.

    :param generation: the generation that the batch had before its images were read.
    """
    ended = {"unswept": "", "swept_to": ""} | sweep_claims.ENDED
    _record(db, {"_id": batch_id, "generation": generation}, {"$set": {"swept_generation": generation}, "$unset": ended})


def _record(db: Db, batch: Document, update: Document) -> None:
    with translate_errors():
        db.batches.update_one(batch, update)
