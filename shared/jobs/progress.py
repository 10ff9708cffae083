"""How a worker records that a part of a job was done, and that the job ended."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from shared.clock import utc_now
from shared.jobs import changes, records
from shared.jobs.claims import LEASES
from shared.queue.leases import Lease, now_plus
from shared.storage.mongo import Db, Document, translate_errors

MAX_REST: Final = 250
"""The number of images that others have changed during a part, and that are changed in one transaction afterwards."""


class JobLost(Exception):
    """The worker has lost the lease of the job, so it must not write any more. Another worker does the job, or it has ended."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ids of the images of a part, and its cursor."""

    ids: tuple[str, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that a worker has claimed, as it is stored after the last part that was done."""

    owner: str
    document: Document

    @property
    def id(self) -> str:
        """The id of the job."""
        return str(self.document["_id"])

    @property
    def lease(self) -> Lease:
        """The lease of the job."""
        return LEASES.lease(self.document)

    @property
    def cursor(self) -> str:
        """How far the job has come; empty before its first part."""
        return self.document.get("cursor") or ""

    @property
    def open_change(self) -> str | None:
        """The id of the ``JobChange`` of a part that has begun and not ended or, with ``chosen``, its cursor; None without such a part."""
        return self.document.get("open_change")

    @property
    def chosen(self) -> "Chosen | None":
        """The images of a part that ``choose`` has recorded, and ``conclude`` has not; None if there are none."""
        return chosen_of(self.document) if "chosen" in self.document else None

    @property
    def rest(self) -> tuple[str, ...]:
        """The ids of the images that a part could not change, and that the next part must: at most ``MAX_REST``."""
        return tuple(self.document["rest"]["ids"][:MAX_REST]) if "rest" in self.document else ()

    @property
    def rest_cursor(self) -> str:
        """The cursor of the part that has left the rest."""
        return str(self.document["rest"]["cursor"])

    def with_progress(self, document: Document) -> "HeldJob":
        """Return this job as it is stored after another part. ``document`` has no parameters, because they do not change."""
        return HeldJob(self.owner, document | {"params": self.document["params"]})


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a job has done: it has handled ``done`` images, and has changed ``changed`` of them.

    ``full`` is the number of images that were left as they were, because they had no place for more tags. ``images`` describes
    the changes, for ``JobChange``; ``tags`` and ``at`` are the fields of the same names there. ``is_rest`` says that the part
    is about the ``rest`` of the job, so ``done`` is 0, because these images were counted before. ``omitted`` is the number of
    images that were left, by the code of the reason (``error_codes.OMISSIONS``).
    """

    cursor: str
    at: datetime
    done: int = 0
    changed: int = 0
    full: int = 0
    is_limited: bool = False
    tags: tuple[str, ...] = ()
    images: tuple[Document, ...] = ()
    is_rest: bool = False
    omitted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of an attempt to do the next part of a job: the job after this part, or None if there is nothing left to do.

    ``error`` is why the job fails, as ``{code, detail}``; None if it does not. If the part cannot be done yet, ``wait_s`` is the
    number of seconds until it is tried again, and the job waits so long without a worker.
    """

    job: HeldJob | None
    error: dict[str, str] | None = None
    wait_s: float = 0.0


def begin_part(db: Db, session: ClientSession, job: HeldJob) -> None:
    """Begin a transaction of a part. This is its first operation, and ``advance``, ``plan`` or ``settle`` is the last one.

    It writes the job, so whatever else writes it, such as the renewal of its lease, waits for the transaction. Otherwise, the
    transaction would fail at its end if a renewal had come between, and a slow part would never be done.

    :raises JobLost: when the worker has lost the lease.
    """
    if not db.jobs.update_one(LEASES.guard(job.owner, job.lease), {"$inc": {"parts": 1}}, session=session).matched_count:
        raise JobLost


def advance(db: Db, session: ClientSession, job: HeldJob, part: Part) -> HeldJob:
    """Record in the transaction of a part that it was done, with what it has changed, and return the job.

    :raises JobLost: when the worker has lost the lease, so that the transaction must be rolled back.
    """
    if part.images:
        db.job_changes.insert_one(_change_of(job, part), session=session)
    update = _update_of(_describe(part), part.changed)
    if part.is_rest and (left := job.document["rest"]["ids"][MAX_REST:]):
        del update["$set"]["cursor"]
        update["$set"]["rest.ids"] = left
    elif part.is_rest:
        update["$unset"] = {"rest": ""}
    return _write(db, session, job, update)


def plan(db: Db, session: ClientSession, job: HeldJob, part: Part, edits: Sequence[Document]) -> tuple[HeldJob, Document]:
    """Record in a transaction what a part is about to change outside it, and return the job, and the ``JobChange`` with the plan.

    :param edits: the changes of the images, for ``JobChange.plan``.
    :raises JobLost: when the worker has lost the lease, so that the transaction must be rolled back.
    """
    change = _change_of(job, part) | {"plan": _describe(part) | {"edits": list(edits)}}
    db.job_changes.insert_one(change, session=session)
    return _write(db, session, job, {"$set": {"open_change": change["_id"]}}), change


def settle(db: Db, session: ClientSession, job: HeldJob, change: Document, changed: Collection[str], rest: Collection[str]) -> HeldJob:
    """Record in a transaction that a part has ended that ``plan`` has recorded, and return the job.

    :param change: the ``JobChange`` with the plan.
    :param changed: the ids of the images that the part has changed.
    :param rest: the ids of those that it could not change. Another part must do this, so the cursor stays until then.
    :raises JobLost: when the worker has lost the lease, so that the transaction must be rolled back.
    """
    _settle_change(db, session, change, changed)
    update = _update_of(change["plan"], len(changed))
    if rest:
        del update["$set"]["cursor"]
        update["$set"]["rest"] = {"ids": sorted(rest), "cursor": change["plan"]["cursor"]}
    return _write(db, session, job, update | {"$unset": {"open_change": ""}})


def settle_ended(db: Db, session: ClientSession, job_id: str, change: Document, changed: Collection[str]) -> None:
    """Do what ``settle`` does for a job that has ended before its part has. What the part could not change is left."""
    _settle_change(db, session, change, changed)
    kept_until = utc_now() + timedelta(seconds=changes.KEPT_S)
    db.job_changes.update_one({"_id": change["_id"]}, {"$set": {"expires_at": kept_until}}, session=session)
    update = {"$inc": {"changed": len(changed), "done": len(changed)}, "$unset": {"open_change": ""}}
    db.jobs.update_one({"_id": job_id}, update, session=session)


def choose(db: Db, job: HeldJob, image_ids: Sequence[str], cursor: str) -> tuple[HeldJob, Chosen]:
    """Record which images a part is about to change, and return the job. ``conclude`` records later that this was done.

    This is for kinds of jobs whose images tell by themselves what the job has changed. If the worker dies in between, another
    one repeats the part with the same images.

    :param cursor: the cursor of the job after the part.
    :raises JobLost: when the worker has lost the lease.
    :raises StoreAway: when MongoDB does not respond.
    """
    chosen = {"ids": list(image_ids), "cursor": cursor}
    with translate_errors():
        held = _write(db, None, job, {"$set": {"chosen": chosen, "open_change": cursor}})
    return held, chosen_of(held.document)


def read_lease_s(db: Db, job: HeldJob) -> float:
    """Return for how many seconds the worker certainly still holds the lease of a job, even if it is not renewed.

    No other worker can do the job in this time, and it cannot end. So a worker writes nothing too late if its time limit is this.

    :raises JobLost: when the worker has lost the lease, or it has expired.
    :raises StoreAway: when MongoDB does not respond.
    """
    began = time.monotonic()
    with translate_errors():
        found = db.jobs.find_one(LEASES.guard(job.owner, job.lease), {"left_ms": {"$subtract": ["$lease_until", "$$NOW"]}})
    left_s = found["left_ms"] / 1000 - (time.monotonic() - began) if found else 0.0
    if left_s <= 0:
        raise JobLost
    return left_s


def conclude(db: Db, job: HeldJob, part: Part) -> HeldJob:
    """Record that a part was done, with or without ``choose``, and return the job.

    :raises JobLost: when the worker has lost the lease.
    :raises StoreAway: when MongoDB does not respond.
    """
    update = _update_of(_describe(part), part.changed)
    update["$inc"] |= {f"omitted.{code}": count for code, count in part.omitted.items() if count}
    with translate_errors():
        return _write(db, None, job, update | {"$unset": {"chosen": "", "open_change": ""}})


def conclude_ended(db: Db, job: Document, part: Part) -> None:
    """Do what ``conclude`` does for a job that has ended before its part has.

    :raises StoreAway: when MongoDB does not respond.
    """
    omitted = {f"omitted.{code}": count for code, count in part.omitted.items() if count}
    update = {"$inc": {"done": part.done, "changed": part.changed} | omitted, "$unset": {"chosen": "", "open_change": ""}}
    with translate_errors():
        db.jobs.update_one({"_id": job["_id"], "open_change": job["open_change"], "status": {"$in": sorted(records.ENDED)}}, update)


def find_unsettled(db: Db, limit: int) -> list[Document]:
    """Return the ids and the kinds of jobs that have ended before a part of them has.

    :raises StoreAway: when MongoDB does not respond.
    """
    query = {"open_change": {"$gt": ""}, "status": {"$in": sorted(records.ENDED)}}
    with translate_errors():
        return list(db.jobs.find(query, {"kind": 1}, hint="open_changes").limit(limit))


def set_total(db: Db, job: HeldJob, total: int) -> HeldJob:
    """Record the number of images that a job is about, and return the job.

    :raises JobLost: when the worker has lost the lease.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        stored = db.jobs.find_one_and_update(
            LEASES.guard(job.owner, job.lease), {"$set": {"total": total}}, projection={"params": 0}, return_document=ReturnDocument.AFTER
        )
    if stored is None:
        raise JobLost
    return job.with_progress(stored)


def finish(db: Db, job: HeldJob, status: str, error: dict[str, str] | None = None) -> bool:
    """Record that a job has ended.

    :param status: ``done``, ``failed``, or ``cancelled``.
    :param error: why it failed: ``{code, detail}``.
    :returns: whether the worker still held the job. If not, nothing is stored.
    :raises StoreAway: when MongoDB does not respond.
    """
    fields = {"status": status, "error": {"$literal": error}, "finished_at": "$$NOW", "expires_at": now_plus(records.KEPT_S), **LEASES.unheld()}
    with translate_errors():
        ended = db.jobs.update_one(LEASES.guard(job.owner, job.lease), [{"$set": fields}]).modified_count
    if ended:
        changes.limit(db, [job.id])
    return bool(ended)


def _settle_change(db: Db, session: ClientSession, change: Document, changed: Collection[str]) -> None:
    """Reduce, in a transaction, a ``JobChange`` to the images that were changed. Delete it if there is nothing to undo."""
    images = [image for image in change["images"] if image["id"] in changed]
    if not images:
        db.job_changes.delete_one({"_id": change["_id"]}, session=session)
        return
    less = {"$set": {"images": images}} if len(images) < len(change["images"]) else {}
    db.job_changes.update_one({"_id": change["_id"]}, {"$unset": {"plan": ""}} | less, session=session)


def _change_of(job: HeldJob, part: Part) -> Document:
    kept_until = utc_now() + timedelta(seconds=records.KEPT_S)  # the end of the job sets an earlier time
    return {
        "_id": f"{job.id}:{part.cursor}" + (f":{job.rest[-1]}" if part.is_rest else ""),
        "job": job.id,
        "at": part.at,
        "by": job.document["by"],
        "tags": list(part.tags),
        "images": list(part.images),
        "expires_at": kept_until,
    }


def chosen_of(job: Document) -> Chosen:
    """Return the images of a part of a stored job that ``choose`` has recorded."""
    stored = job["chosen"]
    return Chosen(tuple(stored["ids"]), stored["cursor"])


def _describe(part: Part) -> Document:
    return {"cursor": part.cursor, "done": part.done, "full": part.full, "is_limited": part.is_limited}


def _update_of(part: Document, changed: int) -> Document:
    """Return the update of a job after a part. ``part`` is what ``_describe`` returned."""
    fields: dict[str, Any] = {"cursor": part["cursor"], "attempts": 0, "outages": 0} | ({"is_limited": True} if part["is_limited"] else {})
    return {"$set": fields, "$inc": {"done": part["done"], "changed": changed, "full": part["full"]}}


def _write(db: Db, session: ClientSession | None, job: HeldJob, update: Document) -> HeldJob:
    stored = db.jobs.find_one_and_update(
        LEASES.guard(job.owner, job.lease), update, projection={"params": 0}, return_document=ReturnDocument.AFTER, session=session
    )
    if stored is None:
        raise JobLost
    return job.with_progress(stored)
