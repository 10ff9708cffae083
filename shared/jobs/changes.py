"""Limits for how long what jobs have changed is kept."""

from collections.abc import Collection
from datetime import timedelta
from typing import Final

from shared.clock import utc_now
from shared.storage.mongo import Db, translate_errors

ENDED: Final = frozenset({"done", "failed", "cancelled"})
"""The stored statuses of jobs that have ended."""
UNDO_S: Final = 86400
"""Seconds after the end of a job in which it can be undone."""
KEPT_S: Final = UNDO_S + 3600
"""Seconds after the end of a job until what it has changed is deleted: a little more than the time in which it can be undone."""


def limit(db: Db, job_ids: Collection[str]) -> None:
    """Let what jobs have changed be deleted when they can no longer be undone. Call this when some of them may have ended.

    Jobs that have not ended are left. If this is not called, because the process dies, the changes are deleted together with
    the job. When an undo has ended, this is about the changes of the job that it undoes.

    :raises StoreAway: when MongoDB does not respond.
    """
    query = {"_id": {"$in": sorted(job_ids)}, "status": {"$in": sorted(ENDED)}}
    with translate_errors():
        ended = {name for row in db.jobs.find(query, {"params.job": 1}) for name in (row["_id"], row["params"].get("job")) if name}
        if ended:
            until = utc_now() + timedelta(seconds=KEPT_S)
            # The change of a part that has not ended is kept until the part is settled.
            db.job_changes.update_many({"job": {"$in": sorted(ended)}, "plan": None}, {"$set": {"expires_at": until}})
