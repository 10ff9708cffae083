"""Counts all images that were ever accepted, by their outcome, without reading all of their documents each time.

Batches that are older than a minute are counted in segments of a few hundred consecutive ids. Each segment covers the
ids in the interval ``(after, _id]``, and the segments are contiguous. The batches that are newer than the newest
segment are called the head. One small document, the totals, has the sum of all segments and the counts of the head.

The sweep calls ``refresh`` at each tick. It adds new segments, recounts some of the existing ones, and counts the head.
Segments with pending images and segments in which something was deleted or reprocessed are recounted at once. All others are recounted
in rotation, which shows a document that was removed by hand. Where a sum is wrong, the batches concerned are looked for
(``shared.ledger.imbalances``) and kept with the segment, and such segments are recounted more often than others.

All numbers of one interval are read from one snapshot, because otherwise images that change their state between two
reads could look like lost images. Therefore, the numbers of each interval balance, and so do the totals.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from shared.ids import smallest_batch_id
from shared.ledger.imbalances import BALANCED, NAMED, UnbalancedBatches, find_unbalanced
from shared.storage.mongo import Db, Document, majority, run_raw_transaction, translate_errors
from shared.storage.schema import RARE_STATES

OUTCOMES: Final = ("done", "failed", "cancelled", "pending", "deleted")
"""The outcomes of an image. In every count, ``received`` equals the sum of these numbers unless a document is missing."""
SEGMENT_BATCHES: Final = 256
SEGMENT_IMAGES: Final = 8000
"""A segment ends with the batch with which it has this number of batches or images."""
_SETTLED_S: Final = 60
_ROTATION: Final = 2
"""Number of segments that each tick recounts in rotation, even if its time is over. With ticks every two seconds, these
are 86,400 segments a day: 22 million batches, or 690 million images if the batches have more than 31 images each."""
_RECOUNT_AFTER_S: Final = 12 * 3600
"""A tick recounts further segments if their counts are older than this number of seconds and it has time left."""
_CANDIDATES: Final = 64
_UNBALANCED: Final = 2
"""Number of segments that do not balance that each tick recounts, so that a repair soon shows."""
_MAX_UNBALANCED: Final = 1000
_MARKED_AT_ONCE: Final = 1000
_DEADLINE_S: Final = 10.0
_TOTALS: Final = "totals"
_OFF: Final = {"imbalance.batches": {"$gt": 0}}


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of all images: ``received`` and ``OUTCOMES``.

    ``missing`` is the number of missing image documents, and ``unbalanced_batches`` of the batches that lack documents or have
    too many; ``unbalanced`` names some of them, the newest first. If that concerns more than 1,000 segments, the numbers are those of 1,000.
    ``age_s`` is the number of seconds since the sweep updated the counts. ``oldest_recount_age_s`` is the number of
    seconds since the segment was counted whose last count was the longest time ago.
    """

    counts: dict[str, int]
    age_s: float
    oldest_recount_age_s: float
    missing: int
    unbalanced_batches: int
    unbalanced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imbalance:
    """What is wrong among the batches with ids in ``(after, newest]``, if it differs from before.

    If ``newest`` is None, these are all batches after ``after``. ``missing`` is the number of missing images in the interval, and
    ``batches`` says which batches lack them. They are none if the interval was repaired after it was counted, and is counted again.
    """

    after: str
    newest: str | None
    missing: int
    batches: UnbalancedBatches


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of ``refresh``. ``complete`` is False if the time was too short to update the totals."""

    imbalances: list[Imbalance]
    complete: bool


def count_interval(db: Db, after: str = "", newest: str | None = None) -> dict[str, int]:
    """Count the images of all batches with ids in the interval ``(after, newest]``; the default is all batches.

    ``received`` and ``deleted`` are read from the documents of the ledger, which are written when a batch is committed
    and when it is deleted. All other numbers count image documents by reading indexes only.

    :returns: ``received`` and ``OUTCOMES``. If image documents were removed by hand, ``received`` is greater than the
        sum of the other numbers.
    """
    ids: Document = {"$gt": after} if newest is None else {"$gt": after, "$lte": newest}
    sums = {"_id": None, "received": {"$sum": "$received"}, "deleted": {"$sum": "$deleted"}}
    by_status = {"_id": "$status", "n": {"$sum": 1}}
    # With fewer states than the filter of the index names, MongoDB would read each document, too.
    rare_states = {"status": {"$in": RARE_STATES}, "batch_id": ids}
    with db.client.start_session(snapshot=True) as session:
        lines = next(iter(db.ledger.aggregate([{"$match": {"_id": ids}}, {"$group": sums}], session=session)), {})
        groups = db.images.aggregate(
            [{"$match": rare_states}, {"$group": by_status}], hint="rare_states", session=session
        )
        states = Counter({group["_id"]: group["n"] for group in groups})
        by_batch = [("batch_id", 1), ("index", 1)]
        all_images = db.images.count_documents({"batch_id": ids}, hint=by_batch, session=session)
    return {
        "received": lines.get("received", 0),
        "done": all_images - states.total(),
        "failed": states["failed"],
        "cancelled": states["cancelled"],
        "pending": states["queued"] + states["processing"],
        "deleted": lines.get("deleted", 0),
    }


def count_missing(counts: dict[str, int]) -> int:
    """Return the number of images that were received but have no document, although they were not deleted."""
    return counts["received"] - sum(counts[outcome] for outcome in OUTCOMES)


def read_totals(db: Db) -> Totals | None:
    """Read the totals, which are one small document. They are None until the sweep has counted for the first time.

    The segments with missing documents are read, too.

    :raises StoreAway: when MongoDB does not respond.
    """
    ages = {name: {"$subtract": ["$$NOW", f"${name}"]} for name in ("counted_at", "oldest_counted_at")}
    with translate_errors():
        found = db.ledger_totals.find_one(
            {"_id": _TOTALS, "counted_at": {"$ne": None}}, {"segments": 1, "head": 1, "head_imbalance": 1} | ages
        )
        if found is None:
            return None
        segments = db.ledger_segments.find(_OFF, {"imbalance": 1}).limit(_MAX_UNBALANCED)
        documents = [found.get("head_imbalance"), *(segment["imbalance"] for segment in segments)]
    counts = {name: found["segments"][name] + found["head"][name] for name in ("received", *OUTCOMES)}
    age_s, oldest_age_s = (max(0, found[name]) / 1000 for name in ages)
    off = [UnbalancedBatches.from_document(document) for document in documents]
    named = sorted((batch_id for batches in off for batch_id, _ in batches.named), reverse=True)
    missing = max(0, count_missing(counts), sum(batches.missing for batches in off))
    return Totals(counts, age_s, oldest_age_s, missing, sum(batches.count for batches in off), tuple(named[:NAMED]))


def mark_changed(db: Db, session: ClientSession, batch_id: str) -> None:
    """Have the segment of a batch recounted soon, in the transaction that deletes images of the batch."""
    db.ledger_segments.update_one(*_mark(batch_id), session=session)


def mark_due(db: Db, batch_ids: Iterable[str]) -> None:
    """Have the segments of batches recounted soon, because images of the batches wait for a worker again.

    Call this after the images were queued, outside a transaction. Without it, the counts would still balance, but show these
    images as finished until the segment is recounted in rotation.
    """
    ids = sorted(set(batch_ids))
    for start in range(0, len(ids), _MARKED_AT_ONCE):
        marks = [UpdateOne(*_mark(batch_id)) for batch_id in ids[start : start + _MARKED_AT_ONCE]]
        db.ledger_segments.bulk_write(marks, ordered=False)


def _mark(batch_id: str) -> tuple[Document, Document]:
    """Return the filter for the segment of a batch, and the update that discards a recount that has begun already."""
    return {"_id": {"$gte": batch_id}, "after": {"$lt": batch_id}}, {"$set": {"due": True}, "$inc": {"changes": 1}}


def refresh(db: Db, until: float, *, now: datetime | None = None) -> Refreshed:
    """Add segments, recount segments, and update the totals (called by the sweep).

    :param until: time limit, in ``time.monotonic`` seconds. A call exceeds it by the counts of a few segments at most.
    :param now: the current time as naive UTC; by default, the time of the MongoDB server.
    """
    with translate_errors():
        if now is None:
            now = db.command("hello")["localTime"].replace(tzinfo=None)
        settled = smallest_batch_id(now - timedelta(seconds=_SETTLED_S))
        segmented_to = _read_or_create_totals(db)["segmented_to"]
        imbalances: list[Imbalance] = []
        while (newest := _next_segment_end(db, segmented_to, settled)) is not None:
            imbalances += _append_segment(db, segmented_to, newest)
            segmented_to = newest
            if time.monotonic() > until:
                break
        imbalances += _recount(db, until, now)
        if newest is None:  # otherwise, the head is too long to be counted
            imbalances += _count_head(db, segmented_to)
    return Refreshed(imbalances, complete=newest is None)


def _read_or_create_totals(db: Db) -> Document:
    found = db.ledger_totals.find_one({"_id": _TOTALS}, {"segmented_to": 1})
    if found is None:
        none = dict.fromkeys(("received", *OUTCOMES), 0)
        first = {"segmented_to": "", "segments": none, "head": none}
        db.ledger_totals.update_one({"_id": _TOTALS}, {"$setOnInsert": first}, upsert=True)
        found = db.ledger_totals.find_one({"_id": _TOTALS}, {"segmented_to": 1})
    assert found is not None  # noqa: S101 -- it exists now, and is never deleted
    return found


def _next_segment_end(db: Db, after: str, settled: str) -> str | None:
    """Return the id of the last batch of the segment that follows ``after``; None if there are too few batches yet."""
    rows = db.ledger.find({"_id": {"$gt": after, "$lte": settled}}, {"received": 1}).sort("_id", 1)
    images = 0
    for number, row in enumerate(rows.limit(SEGMENT_BATCHES).batch_size(SEGMENT_BATCHES), start=1):
        images += row["received"]
        if number == SEGMENT_BATCHES or images >= SEGMENT_IMAGES:
            return str(row["_id"])
    return None


def _append_segment(db: Db, after: str, newest: str) -> list[Imbalance]:
    """Move the batches with ids in ``(after, newest]`` from the head to a new segment.

    The segment is due at once, because a batch of it may have been deleted since it was counted.

    :returns: the missing images of the segment, unless they were already missing when the head was counted.
    """
    counts = count_interval(db, after, newest)
    missing, batches = _find_missing(db, after, newest, counts)
    moved = {f"segments.{name}": count for name, count in counts.items()}
    moved |= {f"head.{name}": -count for name, count in counts.items()}

    def write(session: ClientSession) -> Document | None:
        first = {"_id": _TOTALS, "segmented_to": after}
        change = {"$set": {"segmented_to": newest}, "$inc": moved}
        found = db.ledger_totals.find_one_and_update(first, change, {"head": 1}, session=session)
        if found is not None:
            fields = {"after": after, "counts": counts, "due": True, "changes": 0}
            db.ledger_segments.update_one({"_id": newest}, _counted(fields, batches), upsert=True, session=session)
        return found

    before = run_raw_transaction(db, write, _DEADLINE_S)
    if before is None or missing == 0 or 0 < missing <= _known_missing(before):
        return []
    return [Imbalance(after, newest, missing, batches)]


def _recount(db: Db, until: float, now: datetime) -> list[Imbalance]:
    recounted: list[tuple[Document, dict[str, int], int, UnbalancedBatches]] = []
    for number, segment in enumerate(_recount_candidates(db, now)):
        if number >= _ROTATION and time.monotonic() > until:
            break
        counts = count_interval(db, segment["after"], segment["_id"])
        recounted.append((segment, counts, *_find_missing(db, segment["after"], segment["_id"], counts)))
    if not recounted:
        return []

    def write(session: ClientSession) -> list[Imbalance]:
        change: Counter[str] = Counter()
        imbalances: list[Imbalance] = []
        for segment, counts, missing, batches in recounted:
            # If the segment was changed since it was read, the counts may be outdated, and it is recounted later.
            unchanged = {name: segment[name] for name in ("_id", "changes", "counted_at")}
            # If no batch was found, it was repaired in the meantime.
            fields = {"counts": counts, "due": counts["pending"] > 0 or (missing != 0 and batches.count == 0)}
            if not db.ledger_segments.update_one(unchanged, _counted(fields, batches), session=session).matched_count:
                continue
            change.update({f"segments.{name}": count - segment["counts"][name] for name, count in counts.items()})
            known = count_missing(segment["counts"]), UnbalancedBatches.from_document(segment.get("imbalance"))
            if (missing, batches) != known:
                imbalances.append(Imbalance(segment["after"], segment["_id"], missing, batches))
        differences = {name: difference for name, difference in change.items() if difference}
        if differences:
            db.ledger_totals.update_one({"_id": _TOTALS}, {"$inc": differences}, session=session)
        return imbalances

    return run_raw_transaction(db, write, _DEADLINE_S)


def _find_missing(db: Db, after: str, newest: str | None, counts: dict[str, int]) -> tuple[int, UnbalancedBatches]:
    """Return how many images are missing in an interval, and the batches that lack them. Nothing is read if none is missing."""
    missing = count_missing(counts)
    return missing, find_unbalanced(db, after, newest) if missing else BALANCED


def _counted(fields: Document, batches: UnbalancedBatches) -> Document:
    """Return the update that stores the new counts of a segment."""
    update: Document = {"$set": fields, "$currentDate": {"counted_at": True}}
    if batches.count:
        update["$set"] = fields | {"imbalance": batches.to_document()}
    else:
        update["$unset"] = {"imbalance": ""}
    return update


def _recount_candidates(db: Db, now: datetime) -> list[Document]:
    """Return the segments to recount.

    These are first ``_ROTATION`` in rotation, then some that do not balance, then those that are due, then those with old
    counts.
    """
    # The read concern is that of the snapshots. So if ``changes`` includes a deletion, a snapshot taken later does, too.
    segments = majority(db, "ledger_segments")
    oldest = list(segments.find().sort("counted_at", 1).limit(_CANDIDATES))
    off = list(segments.find(_OFF).sort("counted_at", 1).limit(_UNBALANCED))
    due = list(segments.find({"due": True}).sort("counted_at", 1).limit(_CANDIDATES))
    before = now - timedelta(seconds=_RECOUNT_AFTER_S)
    old = [segment for segment in oldest if segment["counted_at"] < before]
    return list({segment["_id"]: segment for segment in (*oldest[:_ROTATION], *off, *due, *old)}.values())


def _count_head(db: Db, segmented_to: str) -> list[Imbalance]:
    head = count_interval(db, segmented_to)
    missing, batches = _find_missing(db, segmented_to, None, head)
    oldest = db.ledger_segments.find_one({}, {"counted_at": 1}, sort=[("counted_at", 1)])
    fields = {
        "head": head,
        "head_imbalance": {"$literal": batches.to_document()} if batches.count else "$$REMOVE",
        "counted_at": "$$NOW",
        "oldest_counted_at": oldest["counted_at"] if oldest else "$$NOW",
    }
    current = {"_id": _TOTALS, "segmented_to": segmented_to}
    before = db.ledger_totals.find_one_and_update(current, [{"$set": fields}], {"head": 1})
    if before is None or max(0, missing) == _known_missing(before):
        return []
    return [Imbalance(segmented_to, None, missing, batches)]


def _known_missing(totals: Document) -> int:
    """Return the number of missing images in the head that have been reported.

    The difference in the stored counts is smaller if images were lost between the last count of the head and the move of
    their batch to a segment. These are reported with the segment. So a negative difference counts as zero.
    """
    return max(0, count_missing(totals["head"]))
