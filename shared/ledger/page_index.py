"""Finds the first batch of page N without scanning all earlier pages.

MongoDB's ``skip`` scans index keys, so reading page 10,000 would cost a hundred times as much as reading page 1. For
this reason, batches older than a minute are counted in segments of a few hundred consecutive ids. There are segments
for all batches (scope ``*``) and for each store. The counts of 128 old segments are summed in a group. A query for a
page adds up the counts of groups and of at most 256 newer segments (two small covered reads, or one while there are no
more than 256 segments), and then skips batches within a single segment. The batches that are newer than the newest segment are called the head. They are counted
directly. ``shared.ledger.segments`` writes segments (collection ``ranks``) and groups (``rank_groups``).

A deletion decreases the counts of the affected segments and groups in its own transaction, and so does a move of an
image to another store, which can also increase counts. However, two things make counts wrong: a commit that is completed more
than a minute late, and a deletion or move that is committed while its batch is added, that is, after ``maintain`` has read the
stores of the batch and before it has written all segments of the chunk. This takes some milliseconds, about a minute after the
upload. A common document that both write would prevent it, but all deletions and moves of new batches would conflict there, and a
chunk can be too large for a transaction. A wrong count shifts the pages of a list by a batch. ``recount`` corrects such counts;
the sweep calls it repeatedly, so that each segment is recounted in turn.
"""

import math
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pymongo
from pymongo import ASCENDING, DESCENDING
from pymongo.client_session import ClientSession

from shared.errors import TooSlow
from shared.ids import smallest_batch_id
from shared.ledger import segments
from shared.storage.mongo import Db, Document, translate_errors

ALL: Final = "*"
_CHUNK: Final = 256
_CHUNK_ENTRIES: Final = 4096
_ROWS_AT_ONCE: Final = 16
_MAX_HEAD: Final = 100_000
_SETTLED_S: Final = 60
_CURSOR: Final = "cursor"
_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a batch in the list of a scope.

    To reach the batch, start at the largest id ``<= newest`` (or at the newest batch if ``newest`` is None), and skip
    ``skip`` batches. ``total`` is the number of batches in the scope.
    """

    newest: str | None
    skip: int
    total: int


def scope_of(store: str | None) -> str:
    """Return the name of the scope of a store. If ``store`` is None, return the name of the scope of all batches."""
    return ALL if store is None else f"store:{store}"


def listed_query(store: str | None) -> dict[str, Any]:
    """Return the query for the listed batches of a store. If ``store`` is None, the query covers all stores."""
    return {"listed": True} if store is None else {"stores": store, "listed": True}


def find_position(db: Db, store: str | None, index: int, deadline_ms: int) -> Position:
    """Return the position of the batch with the given ``index`` (0 is the newest) in the list of a store.

    If ``store`` is None, the list contains the batches of all stores.

    :raises TooSlow: when the page index is far behind, because the sweep has not been running.
    """
    scope = scope_of(store)
    spans, groups = _read_counts(db, scope, deadline_ms)
    head_query = listed_query(store)
    if spans:
        head_query["_id"] = {"$gt": spans[0]["newest"]}
    head = db.batches.count_documents(head_query, limit=_MAX_HEAD + 1, maxTimeMS=deadline_ms)
    if head > _MAX_HEAD:
        raise TooSlow("The page index is not up to date; use cursor=newest, or retry later.")
    total = head + sum(span["count"] for span in spans)
    if index < head or not spans:
        return Position(None, index, total)
    number, skip = _find_span(spans, index - head)
    if number >= len(spans) - len(groups):
        after = spans[number + 1]["newest"] if number + 1 < len(spans) else ""
        members = {"$gt": after, "$lte": spans[number]["newest"]}
        spans = _read_spans(db, "ranks", scope, members, deadline_ms)
        number, skip = _find_span(spans, skip)
    return Position(spans[number]["newest"], skip, total)


def maintain(db: Db, *, now: datetime | None = None, max_chunks: int = 40, until: float = math.inf) -> int:
    """Add batches older than a minute to the segments (called by the sweep).

    :param now: the current time as naive UTC; by default, the time of the MongoDB server.
    :param max_chunks: maximum number of chunks to add in one call. A chunk has up to 256 batches, or fewer if these
        have images of thousands of stores.
    :param until: the value of ``time.monotonic()`` after which no further chunk is added.
    :returns: the number of batches that this call added.
    """
    added = 0
    with translate_errors():
        if now is None:
            now = db.command("hello")["localTime"].replace(tzinfo=None)
        for _ in range(max_chunks):
            count, has_more = _add_chunk(db, now)
            added += count
            if not has_more or time.monotonic() >= until:
                break
    return added


def recount(db: Db, count: int = 8, *, until: float = math.inf) -> int:
    """Recount the least recently counted segments and groups, and correct wrong counts (called by the sweep).

    :param count: number of segments, and maximum number of groups, to recount.
    :param until: the value of ``time.monotonic()`` after which no further segment is recounted.
    :returns: the number of segments and groups whose count was wrong.
    """
    wrong = 0
    with translate_errors():
        for segment in list(db.ranks.find({"scope": {"$exists": True}}).sort("checked_at", 1).limit(count)):
            wrong += _recount_segment(db, segment)
            if time.monotonic() >= until:
                return wrong
        for group in list(db.rank_groups.find().sort("checked_at", 1).limit(1)):
            wrong += segments.verify_group(db, group)
    return wrong


def remove_batch(db: Db, session: ClientSession, batch_id: str, stores: list[str]) -> None:
    """Decrease the counts that contain a batch under deletion, in the transaction of the deletion."""
    segments.decrease(db, session, [ALL, *(scope_of(store) for store in stores)], batch_id)


def leave_store(db: Db, session: ClientSession, batch_id: str, store: str) -> None:
    """Decrease the counts of a store whose last image of a batch is deleted or moved, in the transaction that does this."""
    segments.decrease(db, session, [scope_of(store)], batch_id)


def enter_store(db: Db, session: ClientSession, batch_id: str, store: str) -> None:
    """Count a batch also for a store to which its first image is moved, in the transaction that moves it.

    A batch that ``maintain`` has not yet reached is left to it.
    """
    scope = scope_of(store)
    if segments.increase(db, session, scope, batch_id):
        return
    cursor = db.ranks.find_one({"_id": _CURSOR}, session=session)
    if cursor is not None and batch_id <= cursor["at"]:
        segments.append_late(db, session, scope, batch_id, db.command("hello")["localTime"].replace(tzinfo=None))


def _read_counts(db: Db, scope: str, deadline_ms: int) -> tuple[list[Document], list[Document]]:
    """Return all segments that are in no group, followed by all groups, the newest first; and also the groups alone."""
    most = 2 * segments.GROUP
    spans = _read_spans(db, "ranks", scope, {}, deadline_ms, limit=most + 1)
    if len(spans) <= most:  # these are all segments, because a segment that is added to a group remains a segment
        return spans, []
    groups = _read_spans(db, "rank_groups", scope, {}, deadline_ms)
    grouped = groups[0]["newest"] if groups else ""
    if spans[-1]["newest"] > grouped:  # more segments than usual are in no group yet
        spans = _read_spans(db, "ranks", scope, {"$gt": grouped}, deadline_ms)
    return [span for span in spans if span["newest"] > grouped] + groups, groups


def _read_spans(
    db: Db, collection: str, scope: str, newest: dict[str, str], deadline_ms: int, limit: int = 0
) -> list[Document]:
    """Return the counts of the segments or groups of a scope, the newest first. The read is covered by an index."""
    query = {"scope": scope, "newest": newest or {"$gt": ""}}
    rows = db[collection].find(query, {"_id": 0, "newest": 1, "count": 1}).sort([("scope", 1), ("newest", DESCENDING)])
    return list(rows.limit(limit).max_time_ms(deadline_ms).batch_size(10_000))


def _find_span(spans: list[Document], index: int) -> tuple[int, int]:
    """Return the position of the span that contains the batch with this index, and the index within this span.

    If the counts are too small because one of them is wrong, return the last span, and the index within it.
    """
    for number, span in enumerate(spans):
        if index < span["count"]:
            return number, index
        index -= span["count"]
    return len(spans) - 1, index + spans[-1]["count"]


def _add_chunk(db: Db, now: datetime) -> tuple[int, bool]:
    """Add the next batches, and return how many they are and whether there may be more.

    The cursor advances after all scopes of the chunk. If the process ends in between, the chunk is repeated, which
    changes nothing in the scopes to which it has already been added.
    """
    cursor = db.ranks.find_one({"_id": _CURSOR}) or {"at": ""}
    limit = smallest_batch_id(now - timedelta(seconds=_SETTLED_S))
    rows = (
        db.batches.find({"listed": True, "_id": {"$gt": cursor["at"], "$lte": limit}}, {"stores": 1})
        .sort("_id", ASCENDING)
        .limit(_CHUNK)
        .batch_size(_ROWS_AT_ONCE)  # a document with a thousand long names of stores has almost a megabyte
    )
    batches: dict[str, list[str]] = {}
    count, entries, last_id = 0, 0, ""
    for row in rows:
        for scope in [ALL, *(scope_of(store) for store in row["stores"])]:
            batches.setdefault(scope, []).append(row["_id"])
        count, entries, last_id = count + 1, entries + 1 + len(row["stores"]), row["_id"]
        if entries >= _CHUNK_ENTRIES:
            break
    if not count:
        return 0, False
    with pymongo.timeout(_DEADLINE_S):
        if not segments.append(db, batches, now):
            return 0, False
        db.ranks.update_one({"_id": _CURSOR}, {"$max": {"at": last_id}}, upsert=True)
    return count, count == _CHUNK or entries >= _CHUNK_ENTRIES


def _recount_segment(db: Db, segment: Document) -> int:
    """Recount a segment and, if its count was wrong, its group. Return the number of wrong counts."""
    store = None if segment["scope"] == ALL else segment["scope"].removeprefix("store:")
    span = {**listed_query(store), "_id": {"$gt": segment["after"], "$lte": segment["newest"]}}
    count = db.batches.count_documents(span)
    db.ranks.update_one(
        {"_id": segment["_id"], "count": segment["count"], "newest": segment["newest"]},
        {"$set": {"count": count}, "$currentDate": {"checked_at": True}},
    )
    if count == segment["count"]:
        return 0
    around = {"scope": segment["scope"], "newest": {"$gte": segment["newest"]}}
    group = db.rank_groups.find_one(around, sort=[("newest", ASCENDING)])
    return 1 + (group is not None and segments.verify_group(db, group))
