"""Where page N begins, without walking there.

``skip`` walks over index keys, so page 10,000 would cost a hundred times page 1. Batches older than a minute are therefore
counted in segments of a few hundred consecutive ids, once for all batches (scope ``*``) and once for each store. A page
adds up segment counts (one small covered read), then skips within one segment. Segments of a scope tile the ids: each
covers ``(after, newest]``; what is newer than the newest segment is the head and is counted directly.

A deletion lowers its segments in its own transaction. Anything else that could make a count wrong (a commit that was
a minute late) is found by ``recount``, which the sweep lets go round and round.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pymongo
from pymongo import ASCENDING, DESCENDING
from pymongo.client_session import ClientSession

from shared.storage.mongo import Db, Document, translate_errors

ALL: Final = "*"
SEGMENT: Final = 512
_CHUNK: Final = 256
_SETTLED_S: Final = 60
_CURSOR: Final = "cursor"
_DEADLINE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Begin at ids ``<= newest`` (None: at the newest of all) and skip ``skip`` of them. ``total`` batches in the scope."""

    newest: str | None
    skip: int
    total: int


def scope_of(store: str | None) -> str:
    """Name the scope of all batches, or of one store's."""
    return ALL if store is None else f"store:{store}"


def listed(store: str | None) -> dict[str, Any]:
    """Query of the batches in a scope that may be shown."""
    return {"listed": True} if store is None else {"stores": store, "listed": True}


def locate(db: Db, store: str | None, position: int, deadline_ms: int) -> Place:
    """Find the batch at ``position`` (0 is the newest) of a scope."""
    scope = scope_of(store)
    segments = list(
        db.ranks.find({"scope": scope}, {"_id": 0, "newest": 1, "count": 1})
        .sort([("scope", 1), ("newest", DESCENDING)])
        .max_time_ms(deadline_ms)
        .batch_size(100_000)
    )
    head_query = listed(store)
    if segments:
        head_query["_id"] = {"$gt": segments[0]["newest"]}
    head = db.batches.count_documents(head_query, maxTimeMS=deadline_ms)
    total = head + sum(segment["count"] for segment in segments)
    if position < head or not segments:
        return Place(None, position, total)
    before = head
    for segment in segments:
        if position < before + segment["count"]:
            return Place(segment["newest"], position - before, total)
        before += segment["count"]
    return Place(segments[-1]["newest"], position - before + segments[-1]["count"], total)


def maintain(db: Db, *, now: datetime | None = None, most: int = 40) -> int:
    """Close segments over batches older than a minute (sweep).

    :param now: UTC, else the server's; ``most`` chunks of 256 batches at the most in one call.
    :returns: how many batches were counted in.
    """
    done = 0
    with translate_errors():
        if now is None:
            now = db.command("hello")["localTime"].replace(tzinfo=None)
        limit = _id_at(now - timedelta(seconds=_SETTLED_S))
        for _ in range(most):
            counted = _close_chunk(db, limit)
            done += counted
            if counted < _CHUNK:
                break
    return done


def recount(db: Db, segments: int = 8) -> int:
    """Count again the segments that were counted longest ago, and put right what is wrong (sweep).

    :returns: how many counts were wrong.
    """
    wrong = 0
    with translate_errors():
        for segment in list(db.ranks.find({"scope": {"$exists": True}}).sort("checked_at", 1).limit(segments)):
            store = None if segment["scope"] == ALL else segment["scope"].removeprefix("store:")
            span = {**listed(store), "_id": {"$gt": segment["after"], "$lte": segment["newest"]}}
            count = db.batches.count_documents(span)
            wrong += count != segment["count"]
            db.ranks.update_one(
                {"_id": segment["_id"], "count": segment["count"], "newest": segment["newest"]},
                {"$set": {"count": count}, "$currentDate": {"checked_at": True}},
            )
    return wrong


def forget(db: Db, session: ClientSession, batch_id: str, stores: list[str]) -> None:
    """Count a batch out that is being deleted, within its deletion's transaction."""
    for scope in [ALL, *(scope_of(store) for store in stores)]:
        db.ranks.update_one(
            {"scope": scope, "newest": {"$gte": batch_id}, "after": {"$lt": batch_id}}, {"$inc": {"count": -1}}, session=session
        )


def _close_chunk(db: Db, limit: str) -> int:
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
            {"_id": _CURSOR, "at": cursor["at"]}, {"$set": {"at": rows[-1]["_id"]}}, upsert=cursor["at"] == "", session=session
        )
        if not (moved.modified_count or moved.upserted_id):
            return  # another sweep was here
        for scope, (count, newest) in counts.items():
            _append(db, session, scope, count, newest)

    with pymongo.timeout(_DEADLINE_S), db.client.start_session() as session:
        session.with_transaction(write)
    return len(rows)


def _append(db: Db, session: ClientSession, scope: str, count: int, newest: str) -> None:
    last = db.ranks.find_one({"scope": scope}, sort=[("newest", DESCENDING)], session=session)
    if last is not None and last["count"] + count <= SEGMENT:
        db.ranks.update_one({"_id": last["_id"]}, {"$set": {"newest": newest}, "$inc": {"count": count}}, session=session)
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


def _id_at(moment: datetime) -> str:
    """Give the smallest batch id of a moment: a UUIDv7 begins with 48 bits of Unix milliseconds."""
    millis = max(0, int((moment - datetime(1970, 1, 1)).total_seconds() * 1000))
    return f"{millis:012x}{'0' * 20}"
