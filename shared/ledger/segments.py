"""Counts the batches of scopes in segments, and sums old segments in groups. See ``shared.ledger.page_index``.

The segments of a scope are contiguous: each covers the ids in the interval ``(after, newest]``. A batch is appended
to the last segment of a scope. When this segment is full, it is marked with ``full``, and then a new segment follows.
Each write is guarded by the ``newest`` of the last segment, so it can be repeated: a batch whose id is not greater has
already been counted. So two processes can append the same batches at the same time, and no transaction is needed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from pymongo import ASCENDING, DESCENDING, InsertOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from shared.storage.mongo import Db, Document, run_raw_transaction

SEGMENT: Final = 512
"""Maximum number of batches in a segment."""
GROUP: Final = 128
"""Number of segments in a group. Between ``GROUP`` and twice as many of the newest segments are in no group."""
_GROUPS_AT_ONCE: Final = 32
_SCOPES_AT_ONCE: Final = 500
_ROUNDS: Final = 6
_DEADLINE_S: Final = 10.0
_DUPLICATE_KEY: Final = 11000
_Write = InsertOne[Document] | UpdateOne


def append(db: Db, batches: Mapping[str, Sequence[str]], now: datetime) -> bool:
    """Append batches to the segments of their scopes. Batches that have already been appended are not counted again.

    :param batches: the ids of the batches of each scope, in ascending order.
    :param now: the current time as naive UTC; a new segment is recounted after all segments recounted before this time.
    :returns: whether all batches have been appended. If False, other processes interfered; repeat the call later.
    """
    scopes = list(batches)
    for begin in range(0, len(scopes), _SCOPES_AT_ONCE):
        if not _append_to(db, {scope: batches[scope] for scope in scopes[begin : begin + _SCOPES_AT_ONCE]}, now):
            return False
    return True


def decrease(db: Db, session: ClientSession, scopes: Sequence[str], batch_id: str) -> None:
    """Decrease the counts of the segments and groups that contain a batch, in the transaction of its deletion."""
    for begin in range(0, len(scopes), _SCOPES_AT_ONCE):
        for collection in (db.ranks, db.rank_groups):
            _change_counts(collection, session, scopes[begin : begin + _SCOPES_AT_ONCE], batch_id, -1)


def increase(db: Db, session: ClientSession, scope: str, batch_id: str) -> bool:
    """Increase the counts of the segment and the group in whose interval a batch is that is new to a scope.

    :returns: False if no segment contains the batch, because it is newer than all of them. Then nothing is changed.
    """
    if not _change_counts(db.ranks, session, [scope], batch_id, 1):
        return False
    _change_counts(db.rank_groups, session, [scope], batch_id, 1)
    return True


def append_late(db: Db, session: ClientSession, scope: str, batch_id: str, now: datetime) -> None:
    """Append a batch that is new to a scope, and newer than all its segments, in the transaction that adds it to the scope.

    :param now: the current time as naive UTC, as for ``append``.
    """
    while True:
        last = db.ranks.find_one({"scope": scope, "newest": {"$gt": ""}}, sort=[("newest", DESCENDING)], session=session)
        write = _next_write(scope, [batch_id], last, now)
        if write is None:
            return
        db.ranks.bulk_write([write], session=session)


def _change_counts(
    collection: Collection[Document], session: ClientSession, scopes: Sequence[str], batch_id: str, difference: int
) -> int:
    """Change the counts of the segments or groups that contain a batch, and return their number."""
    # For each scope, this finds the oldest document that does not end before the batch.
    nearest = collection.aggregate(
        [
            {"$match": {"scope": {"$in": scopes}, "newest": {"$gte": batch_id}}},
            {"$sort": {"scope": DESCENDING, "newest": ASCENDING}},
            {"$group": {"_id": "$scope", "id": {"$first": "$_id"}, "after": {"$first": "$after"}}},
        ],
        session=session,
    )
    writes = [
        UpdateOne({"_id": row["id"]}, {"$inc": {"count": difference}}) for row in nearest if row["after"] < batch_id
    ]
    if writes:
        collection.bulk_write(writes, ordered=False, session=session)
    return len(writes)


def verify_group(db: Db, group: Document) -> bool:
    """Compare the count of a group with the sum of its segments, correct it, and return whether it was wrong."""
    span = {"scope": group["scope"], "newest": {"$gt": group["after"], "$lte": group["newest"]}}
    count = sum(row["count"] for row in db.ranks.find(span, {"_id": 0, "count": 1}))
    # A deletion in the meantime changes the count of the group, too. In this case, the group is left for the next time.
    db.rank_groups.update_one(
        {"_id": group["_id"], "count": group["count"]},
        {"$set": {"count": count}, "$currentDate": {"checked_at": True}},
    )
    return bool(count != group["count"])


def _append_to(db: Db, batches: Mapping[str, Sequence[str]], now: datetime) -> bool:
    grown: set[str] = set()
    for _ in range(_ROUNDS):
        last = _find_last(db, list(batches))
        writes: list[_Write] = []
        for scope, ids in batches.items():
            write = _next_write(scope, ids, last.get(scope), now)
            if write is not None:
                writes.append(write)
                if last.get(scope, {}).get("full"):
                    grown.add(scope)
        if not writes:
            for scope in grown:
                _group_oldest(db, scope, now)
            return True
        _write(db, writes)
    return False


def _find_last(db: Db, scopes: Sequence[str]) -> dict[str, Document]:
    """Return the last segment of each scope that has segments. MongoDB reads one index key of each scope."""
    found = db.ranks.aggregate(
        [
            {"$match": {"scope": {"$in": scopes}}},
            {"$sort": {"scope": ASCENDING, "newest": DESCENDING}},
            {"$group": {"_id": "$scope", "last": {"$first": "$$ROOT"}}},
        ]
    )
    return {row["_id"]: row["last"] for row in found}


def _next_write(scope: str, ids: Sequence[str], last: Document | None, now: datetime) -> _Write | None:
    """Return the next of the writes that append batches to a scope, or None if all of them have been appended."""
    newest = last["newest"] if last else ""
    missing = [batch_id for batch_id in ids if batch_id > newest]
    if not missing:
        return None
    if last is None or "full" in last:
        segment = {"scope": scope, "after": newest, "newest": missing[-1], "count": len(missing), "checked_at": now}
        return InsertOne({"_id": _id_after(newest, scope), **segment})
    guard = {"_id": last["_id"], "newest": newest, "full": {"$exists": False}}
    if last["count"] + len(missing) > SEGMENT:
        return UpdateOne(guard, {"$set": {"full": True}})
    return UpdateOne(guard, {"$set": {"newest": missing[-1]}, "$inc": {"count": len(missing)}})


def _id_after(newest: str, scope: str) -> str:
    """Return the id of the segment or group that follows ``newest``, so that there cannot be two of them."""
    return f"{newest or '-'}/{scope}"


def _write(db: Db, writes: list[_Write]) -> None:
    try:
        db.ranks.bulk_write(writes, ordered=False)
    except BulkWriteError as error:
        failures = error.details["writeErrors"] + error.details["writeConcernErrors"]
        if any(failure["code"] != _DUPLICATE_KEY for failure in failures):
            raise
        # another process has inserted a segment at the same time


def _group_oldest(db: Db, scope: str, now: datetime) -> None:
    """Add the oldest segments to groups, so that at most ``2 * GROUP`` segments remain in no group."""
    last = db.rank_groups.find_one({"scope": scope}, {"newest": 1}, sort=[("newest", DESCENDING)])
    after = last["newest"] if last else ""
    for _ in range(_GROUPS_AT_ONCE):
        ungrouped = {"scope": scope, "newest": {"$gt": after}}
        rows = list(db.ranks.find(ungrouped, {"newest": 1}).sort("newest", ASCENDING).limit(2 * GROUP + 1))
        if len(rows) <= 2 * GROUP:
            return
        members, newest = rows[:GROUP], rows[GROUP - 1]["newest"]
        group = {"_id": _id_after(after, scope), "scope": scope, "after": after, "newest": newest, "checked_at": now}
        try:
            run_raw_transaction(db, partial(_insert_group, db, group, [row["_id"] for row in members]), _DEADLINE_S)
        except DuplicateKeyError:  # another process has made this group
            return
        after = newest


def _insert_group(db: Db, group: Document, members: list[str], session: ClientSession) -> None:
    # A deletion that changes one of the counts without seeing the group conflicts with this write, and is repeated.
    db.ranks.update_many({"_id": {"$in": members}}, {"$set": {"grouped": True}}, session=session)
    counts = db.ranks.find({"_id": {"$in": members}}, {"count": 1}, session=session)
    db.rank_groups.insert_one({**group, "count": sum(row["count"] for row in counts)}, session=session)
