"""Which documents workers hold now. They are read from the documents themselves, so that it is true whatever workers report."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.queue.leases import LeasedCollection
from shared.storage.mongo import Db, translate_errors

NAMED: Final = 10
_MAX_HELD: Final = 10_000
"""A worker holds two claims at most, so with claims of 32 images, this is enough for 150 workers. Of more, some are not counted."""
_DEADLINE_MS: Final = 5000


@dataclass(frozen=True, slots=True)
class Holding:
    """What one worker holds: the number of documents, the ids of some of them, and when the oldest claim was made.

    ``since`` is naive UTC by MongoDB's clock. It is None if that is unknown because an older version made the claims.
    """

    count: int
    ids: tuple[str, ...]
    since: datetime | None


def find_held(db: Db, leases: LeasedCollection, owners: Collection[str]) -> dict[str, Holding]:
    """Return what each of the owners holds that holds something. Only documents that somebody holds are read.

    :raises StoreAway: when MongoDB does not respond.
    """
    if not owners:
        return {}
    owner_path = leases.path("owner")
    claimed_at = {"$ifNull": [f"${leases.path('claimed_at')}", "$updated_at"]}  # older versions only set the latter, if it exists
    query = {"status": "processing", owner_path: {"$in": list(owners)}}
    group: dict[str, Any] = {"_id": f"${owner_path}", "n": {"$sum": 1}, "ids": {"$push": "$_id"}, "since": {"$min": claimed_at}}
    fields: dict[str, Any] = {"n": 1, "since": 1, "ids": {"$slice": ["$ids", NAMED]}}
    pipeline: list[dict[str, Any]] = [{"$match": query}, {"$limit": _MAX_HELD}, {"$group": group}, {"$project": fields}]
    with translate_errors():
        rows = leases.collection(db).aggregate(pipeline, hint="leases", maxTimeMS=_DEADLINE_MS)
        return {row["_id"]: Holding(row["n"], tuple(sorted(row["ids"])), row["since"]) for row in rows}
