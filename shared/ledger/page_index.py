"""Finds the first batch of page N without scanning all earlier pages.

MongoDB's ``skip`` scans index keys, so reading page 10,000 would cost a hundred times as much as reading page 1. For
this reason, batches older than a minute are counted in segments of a few hundred consecutive ids. There are segments
for all batches (scope ``*``) and for each store. A query for a page adds up the counts of segments (one small covered
read), and then skips batches within a single segment. The segments of a scope are contiguous; each covers the ids in
the interval ``(after, newest]``. The batches that are newer than the newest segment are called the head. They are
counted directly.

A deletion decreases the counts of the affected segments in its own transaction. However, a count becomes wrong when,
for example, a commit is completed more than a minute late. The function ``recount`` corrects such counts; the sweep
calls it repeatedly, so that each segment is recounted in turn.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pymongo
from pymongo import ASCENDING, DESCENDING
from pymongo.client_session import ClientSession

from shared.ids import smallest_batch_id
from shared.storage.mongo import Db, Document, translate_errors

ALL: Final = "*"
SEGMENT: Final = 512
_CHUNK: Final = 256
_SETTLED_S: Final = 60
_CURSOR: Final = "cursor"
_DEADLINE_S: Final = 30.0


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
    """
    scope = scope_of(store)
    segments = list(
        db.ranks.find({"scope": scope}, {"_id": 0, "newest": 1, "count": 1})
        .sort([("scope", 1), ("newest", DESCENDING)])
        .max_time_ms(deadline_ms)
        .batch_size(100_000)
    )
    head_query = listed_query(store)
    if segments:
        head_query["_id"] = {"$gt": segments[0]["newest"]}
    head = db.batches.count_documents(head_query, maxTimeMS=deadline_ms)
    total = head + sum(segment["count"] for segment in segments)
    if index < head or not segments:
        return Position(None, index, total)
    before = head
    for segment in segments:
        if index < before + segment["count"]:
            return Position(segment["newest"], index - before, total)
        before += segment["count"]
    return Position(segments[-1]["newest"], index - before + segments[-1]["count"], total)


def maintain(db: Db, *, now: datetime | None = None, max_chunks: int = 40) -> int:
    """Add batches older than a minute to the segments (called by the sweep).

    :param now: the current time as naive UTC; by default, the time of the MongoDB server.
    :param max_chunks: maximum number of chunks, each of 256 batches, to add in one call.
    :returns: the number of batches that this call added.
    """
    added = 0
    with translate_errors():
        if now is None:
            now = db.command("hello")["localTime"].replace(tzinfo=None)
        limit = smallest_batch_id(now - timedelta(seconds=_SETTLED_S))
        for _ in range(max_chunks):
            count = _add_chunk(db, limit)
            added += count
            if count < _CHUNK:
                break
    return added


def recount(db: Db, segments: int = 8) -> int:
    """Recount the least recently counted segments, and correct wrong counts (called by the sweep).

    :param segments: number of segments to recount.
    :returns: the number of segments whose count was wrong.
    """
    wrong = 0
    with translate_errors():
        for segment in list(db.ranks.find({"scope": {"$exists": True}}).sort("checked_at", 1).limit(segments)):
            store = None if segment["scope"] == ALL else segment["scope"].removeprefix("store:")
            span = {**listed_query(store), "_id": {"$gt": segment["after"], "$lte": segment["newest"]}}
            count = db.batches.count_documents(span)
            wrong += count != segment["count"]
            db.ranks.update_one(
                {"_id": segment["_id"], "count": segment["count"], "newest": segment["newest"]},
                {"$set": {"count": count}, "$currentDate": {"checked_at": True}},
            )
    return wrong


def remove_batch(db: Db, session: ClientSession, batch_id: str, stores: list[str]) -> None:
    """Decrease the counts of the segments that contain a batch under deletion, in the transaction of the deletion."""
    for scope in [ALL, *(scope_of(store) for store in stores)]:
        db.ranks.update_one(
            {"scope": scope, "newest": {"$gte": batch_id}, "after": {"$lt": batch_id}},
            {"$inc": {"count": -1}},
            session=session,
        )


def _add_chunk(db: Db, limit: str) -> int:
    cursor = db.ranks.find_one({"_id": _CURSOR}) or {"at": ""}
    rows = list(
        db.batches.find({"listed": True, "_id": {"$gt": cursor["at"], "$lte": limit}}, {"stores": 1})
        .sort("_id", ASCENDING)
        .limit(_CHUNK)
        .batch_size(_CHUNK)
    )
    if not rows:
        return 0
    counts: dict[str, tuple[int, str]] = {}
    for row in rows:
        for scope in [ALL, *(scope_of(store) for store in row["stores"])]:
            counts[scope] = (counts.get(scope, (0, ""))[0] + 1, row["_id"])

    def write(session: ClientSession) -> None:
        moved = db.ranks.update_one(
            {"_id": _CURSOR, "at": cursor["at"]},
            {"$set": {"at": rows[-1]["_id"]}},
            upsert=cursor["at"] == "",
            session=session,
        )
        if not (moved.modified_count or moved.upserted_id):
            return  # another sweep process has already added this chunk
        for scope, (count, newest) in counts.items():
            _append(db, session, scope, count, newest)

    with pymongo.timeout(_DEADLINE_S), db.client.start_session() as session:
        session.with_transaction(write)
    return len(rows)


def _append(db: Db, session: ClientSession, scope: str, count: int, newest: str) -> None:
    last = db.ranks.find_one({"scope": scope}, sort=[("newest", DESCENDING)], session=session)
    if last is not None and last["count"] + count <= SEGMENT:
        db.ranks.update_one(
            {"_id": last["_id"]}, {"$set": {"newest": newest}, "$inc": {"count": count}}, session=session
        )
        return
    segment: Document = {
        "_id": f"{scope}/{newest}",
        "scope": scope,
        "after": last["newest"] if last else "",
        "newest": newest,
        "count": count,
        "checked_at": None,
    }
    db.ranks.insert_one(segment, session=session)
