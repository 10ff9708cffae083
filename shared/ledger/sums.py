"""Counts all images that were ever accepted, by their outcome, without reading all of their documents each time.

Batches that are older than a minute are counted in segments of a few hundred consecutive ids. Each segment covers the
ids in the interval ``(after, _id]``, and the segments are contiguous. The batches that are newer than the newest
segment are called the head. One small document, the totals, has the sum of all segments and the counts of the head.

The sweep calls ``refresh`` at each tick. It adds new segments, recounts some of the existing ones, and counts the head.
Segments with pending images and segments in which something was deleted are recounted at once. All others are recounted
in rotation, which shows a document that was removed by hand.

All numbers of one interval are read from one snapshot, because otherwise images that change their state between two
reads could look like lost images. Therefore, the numbers of each interval balance, and so do the totals.
"""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern

from shared.ids import smallest_batch_id
from shared.storage.mongo import Db, Document, run_raw_transaction, translate_errors
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
_DEADLINE_S: Final = 10.0
_TOTALS: Final = "totals"


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of all images: ``received`` and ``OUTCOMES``.

    ``age_s`` is the number of seconds since the sweep updated the counts. ``oldest_recount_age_s`` is the number of
    seconds since the segment was counted whose last count was the longest time ago.
    """

    counts: dict[str, int]
    age_s: float
    oldest_recount_age_s: float


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The number of missing images among the batches with ids in ``(after, newest]``, if it differs from before.

    If ``newest`` is None, these are all batches after ``after``.
    """

    after: str
    newest: str | None
    missing: int


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

    :raises StoreAway: when MongoDB does not respond.
    """
    ages = {name: {"$subtract": ["$$NOW", f"${name}"]} for name in ("counted_at", "oldest_counted_at")}
    with translate_errors():
        found = db.ledger_totals.find_one(
            {"_id": _TOTALS, "counted_at": {"$ne": None}}, {"segments": 1, "head": 1} | ages
        )
    if found is None:
        return None
    counts = {name: found["segments"][name] + found["head"][name] for name in ("received", *OUTCOMES)}
    age_s, oldest_age_s = (max(0, found[name]) / 1000 for name in ages)
    return Totals(counts, age_s, oldest_age_s)


def mark_changed(db: Db, session: ClientSession, batch_id: str) -> None:
    """Have the segment of a batch recounted soon, in the transaction that deletes images of the batch."""
    db.ledger_segments.update_one(
        {"_id": {"$gte": batch_id}, "after": {"$lt": batch_id}},
        {"$set": {"due": True}, "$inc": {"changes": 1}},
        session=session,
    )


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
    moved = {f"segments.{name}": count for name, count in counts.items()}
    moved |= {f"head.{name}": -count for name, count in counts.items()}

    def write(session: ClientSession) -> Document | None:
        first = {"_id": _TOTALS, "segmented_to": after}
        change = {"$set": {"segmented_to": newest}, "$inc": moved}
        found = db.ledger_totals.find_one_and_update(first, change, {"head": 1}, session=session)
        if found is not None:
            segment = {"$set": {"after": after, "counts": counts, "due": True, "changes": 0}}
            current = {"$currentDate": {"counted_at": True}}
            db.ledger_segments.update_one({"_id": newest}, segment | current, upsert=True, session=session)
        return found

    before, missing = run_raw_transaction(db, write, _DEADLINE_S), count_missing(counts)
    if before is None or missing == 0 or 0 < missing <= _known_missing(before):
        return []
    return [Imbalance(after, newest, missing)]


def _recount(db: Db, until: float, now: datetime) -> list[Imbalance]:
    recounted: list[tuple[Document, dict[str, int]]] = []
    for number, segment in enumerate(_recount_candidates(db, now)):
        if number >= _ROTATION and time.monotonic() > until:
            break
        recounted.append((segment, count_interval(db, segment["after"], segment["_id"])))
    if not recounted:
        return []

    def write(session: ClientSession) -> list[Imbalance]:
        change: Counter[str] = Counter()
        imbalances = []
        for segment, counts in recounted:
            # If the segment was changed since it was read, the counts may be outdated, and it is recounted later.
            unchanged = {name: segment[name] for name in ("_id", "changes", "counted_at")}
            fields = {"counts": counts, "due": counts["pending"] > 0}
            update = {"$set": fields, "$currentDate": {"counted_at": True}}
            if not db.ledger_segments.update_one(unchanged, update, session=session).matched_count:
                continue
            change.update({f"segments.{name}": count - segment["counts"][name] for name, count in counts.items()})
            missing = count_missing(counts)
            if missing != count_missing(segment["counts"]):
                imbalances.append(Imbalance(segment["after"], segment["_id"], missing))
        differences = {name: difference for name, difference in change.items() if difference}
        if differences:
            db.ledger_totals.update_one({"_id": _TOTALS}, {"$inc": differences}, session=session)
        return imbalances

    return run_raw_transaction(db, write, _DEADLINE_S)


def _recount_candidates(db: Db, now: datetime) -> list[Document]:
    """Return the segments to recount: first ``_ROTATION`` in rotation, then those that are due, then those with old counts."""
    # The read concern is that of the snapshots. So if ``changes`` includes a deletion, a snapshot taken later does, too.
    segments = db.get_collection("ledger_segments", read_concern=ReadConcern("majority"))
    oldest = list(segments.find().sort("counted_at", 1).limit(_CANDIDATES))
    due = list(segments.find({"due": True}).sort("counted_at", 1).limit(_CANDIDATES))
    before = now - timedelta(seconds=_RECOUNT_AFTER_S)
    old = [segment for segment in oldest if segment["counted_at"] < before]
    return list({segment["_id"]: segment for segment in (*oldest[:_ROTATION], *due, *old)}.values())


def _count_head(db: Db, segmented_to: str) -> list[Imbalance]:
    head = count_interval(db, segmented_to)
    oldest = db.ledger_segments.find_one({}, {"counted_at": 1}, sort=[("counted_at", 1)])
    fields = {"head": head, "counted_at": "$$NOW", "oldest_counted_at": oldest["counted_at"] if oldest else "$$NOW"}
    current = {"_id": _TOTALS, "segmented_to": segmented_to}
    before, missing = db.ledger_totals.find_one_and_update(current, [{"$set": fields}], {"head": 1}), count_missing(head)
    if before is None or max(0, missing) == _known_missing(before):
        return []
    return [Imbalance(segmented_to, None, missing)]


def _known_missing(totals: Document) -> int:
    """Return the number of missing images in the head that have been reported.

    The difference in the stored counts is smaller if images were lost between the last count of the head and the move of
    their batch to a segment. These are reported with the segment. So a negative difference counts as zero.
    """
    return max(0, count_missing(totals["head"]))
