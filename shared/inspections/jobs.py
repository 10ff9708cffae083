"""An inspection's way: asked, claimed, done or failed; asked again once it is no longer fresh.

The document's id says source and recipe, so MongoDB itself sees to it that a thousand who ask at once have one job. It is nobody's accepted
work: what is lost here is asked for again, so writes are not journalled. A claim has owner, lease and fence like an image's (see
``shared.ledger.claims``).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.write_concern import WriteConcern

from shared.errors import NotFound, ShelfsightError, StoreAway
from shared.inspections import recipes
from shared.inspections.recipes import Recipe, Source
from shared.storage.mongo import Db, Document, translate_errors

_LOSSES_ALLOWED: Final = 3
_ROUNDS: Final = 12
_LOST: Final = {"status": 500, "title": "Inspection failed", "code": "inspection_lost", "detail": "Its workers vanished one after the other.", "extra": {}}
_UNSEEN: Final = {"status": 503, "title": "Not available now", "code": "unavailable", "detail": "Nobody had time to look at it; try again later.", "extra": {}}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a source sent when it was last asked: enough to ask it whether that is still right."""

    sha256: str
    url: str | None = None
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """An inspection as it stands. ``result`` names what was made, if it is ``done``; ``error`` says what a problem document needs, if ``failed``."""

    id: str
    status: str
    source: Source
    recipe: Recipe
    fresh_for_s: float
    """Seconds that a ``done`` or ``failed`` answer is still given out as it is, 0 when it is not; by the database's clock, when it was looked up."""
    result: str | None
    error: dict[str, Any] | None
    seen: Seen | None
    fence: int
    asked_for_s: float
    """Of a claimed one: seconds since it was asked for, by the database's clock."""

    @property
    def pending(self) -> bool:
        """Whether it waits or is being worked on."""
        return self.status in _PENDING

    @property
    def fresh(self) -> bool:
        """Whether it is given out as it is."""
        return self.fresh_for_s > 0


_PENDING: Final = ("queued", "processing")
_PENDING_OF: Final[Document] = {"status": {"$in": list(_PENDING)}}
_FRESH: Final = {"$gt": ["$fresh_until", "$$NOW"]}  # a missing field sorts below every date
_SHOWN: Final = dict.fromkeys(("status", "url", "upload", "recipe", "result", "error", "seen", "fence"), 1) | {
    "fresh_for_ms": {"$subtract": ["$fresh_until", "$$NOW"]}
}


def find(db: Db, job_id: str) -> Job | None:
    """Look an inspection up.

    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        found = _jobs(db).find_one({"_id": job_id}, _SHOWN)
    return _read(found) if found else None


def get(db: Db, job_id: str) -> Job:
    """Look an inspection up that must be there.

    :raises NotFound: it is not, or no longer.
    """
    job = find(db, job_id)
    if job is None:
        raise NotFound("There is no such inspection, or no longer.")
    return job


def has_pending(db: Db, client: str, count: int) -> bool:
    """Say whether a client has begun so many inspections that are not done."""
    with translate_errors():
        return _jobs(db).find_one(_PENDING_OF | {"client": client}, {"_id": 1}, skip=count - 1, hint="pending") is not None


def ask(db: Db, source: Source, recipe: Recipe, client: str, *, keep_s: float, anew: bool = False) -> tuple[Job, bool]:
    """Ask for an inspection. One that is pending, or still fresh, is taken as it stands.

    :param client: who begins it, if nobody has.
    :param keep_s: seconds after which it is forgotten.
    :param anew: take no answer, however fresh: what it names is gone.
    :returns: the inspection; and whether this call queued it, so that somebody must be rung for.
    :raises StoreAway: MongoDB does not answer.
    """
    job_id, token = recipes.job_id(source, recipe), uuid.uuid4().hex
    with translate_errors():
        keep: list[Any] = [{"$in": ["$status", list(_PENDING)]}, *([] if anew else [_FRESH])]
        queued: Document = {
            "status": "queued",
            "asked_by": token,
            "asked_at": "$$NOW",
            "not_before": "$$NOW",
            "url": {"$literal": source.url},
            "upload": source.sha256,
            "client": client,
            "recipe": {"$literal": recipes.as_document(recipe)},
            "expires_at": _in(keep_s),
            "owner": None,
            "losses": 0,
            "fence": {"$ifNull": ["$fence", 0]},
        }
        change = [{"$set": {name: {"$cond": [{"$or": keep}, f"${name}", value]} for name, value in queued.items()}}]
        for last in (False, True):
            try:
                found = _jobs(db).find_one_and_update({"_id": job_id}, change, upsert=True, return_document=ReturnDocument.AFTER)
                break
            except DuplicateKeyError:  # two asked at once for what nobody had asked for: the other one's is there now
                if last:
                    raise
        if found is not None and found["asked_by"] == token:
            return _read(found), True
    return get(db, job_id), False


def claim(db: Db, owner: str, most: int, lease_s: float) -> list[Job]:
    """Take up to ``most`` inspections, those asked for first.

    :raises StoreAway: MongoDB does not answer, and none was taken.
    """
    taken: list[Job] = []
    due = {"status": "queued", "$expr": {"$lte": ["$not_before", "$$NOW"]}}
    change = {"status": "processing", "owner": owner, "lease_until": _in(lease_s), "fence": {"$add": ["$fence", 1]}}
    inspections = _jobs(db)
    for _ in range(_ROUNDS):
        with translate_errors():  # to look first is cheaper than to try
            ids = [row["_id"] for row in inspections.find(due, {"_id": 1}, hint="claimable").sort("asked_at", 1).limit(most - len(taken))]
        lost = False
        for job_id in ids:
            try:
                with translate_errors():
                    found = inspections.find_one_and_update({"_id": job_id, "status": "queued"}, [{"$set": change}], return_document=ReturnDocument.AFTER)
            except StoreAway:
                if taken:  # they are ours
                    return taken
                raise
            if found is None:
                lost = True
            else:
                taken.append(_read(found, (found["lease_until"] - found["asked_at"]).total_seconds() - lease_s))
        if not lost or len(taken) == most:  # else another inspector was faster, and there may be more
            break
    return taken


def renew(db: Db, owner: str, jobs: Sequence[Job], lease_s: float) -> None:
    """Put off the end of leases. One that was lost shows when it is to be finished: nothing is then."""
    with translate_errors():
        _jobs(db).update_many({"$or": [_held(owner, job) for job in jobs]}, [{"$set": {"lease_until": _in(lease_s)}}])


def finish(db: Db, owner: str, job: Job, result: str, seen: Seen, *, fresh_s: float, keep_s: float) -> bool:
    """Store what became of an inspection.

    :returns: whether it was still held.
    """
    kept = {"sha256": seen.sha256, "url": seen.url, "etag": seen.etag, "last_modified": seen.last_modified}
    return _end(db, owner, job, {"status": "done", "result": result, "error": None, "seen": {"$literal": kept}}, fresh_s, keep_s)


def fail(db: Db, owner: str, job: Job, error: ShelfsightError, *, failed_s: float, keep_s: float) -> bool:
    """Store why nothing became of an inspection; the same is told to all who ask in the next ``failed_s`` seconds.

    :returns: whether it was still held.
    """
    said = {"status": error.status, "title": error.title, "code": error.code, "detail": error.detail, "extra": error.extra}
    return _end(db, owner, job, {"status": "failed", "error": {"$literal": said}}, failed_s, keep_s)


def give_back(db: Db, owner: str, jobs: Sequence[Job], delay_s: float = 0) -> None:
    """Queue inspections again that are not to be finished now."""
    if jobs:
        with translate_errors():
            freed = {"status": "queued", "owner": None, "not_before": _in(delay_s)}
            _jobs(db).update_many({"$or": [_held(owner, job) for job in jobs]}, [{"$set": freed}])


def expire_leases(db: Db, failed_s: float) -> int:
    """Queue the inspections of vanished workers; one over which three of them vanished fails (sweep).

    :returns: how many there were.
    """
    over = {"status": "processing", "$expr": {"$lt": ["$lease_until", "$$NOW"]}}
    given_up = {"$gte": ["$losses", _LOSSES_ALLOWED - 1]}
    change = {
        "status": {"$cond": [given_up, "failed", "queued"]},
        "error": {"$cond": [given_up, {"$literal": _LOST}, "$error"]},
        "fresh_until": {"$cond": [given_up, _in(failed_s), "$fresh_until"]},
        "not_before": "$$NOW",
        "owner": None,
        "losses": {"$add": ["$losses", 1]},
    }
    with translate_errors():
        return _jobs(db).update_many(over, [{"$set": change}]).modified_count


def give_up(db: Db, after_s: float, failed_s: float) -> int:
    """Fail what was asked for so long ago and is still waiting: there is no inspector, or not enough of them (sweep).

    :returns: how many there were.
    """
    late = {"status": "queued", "$expr": {"$lt": ["$asked_at", {"$subtract": ["$$NOW", int(after_s * 1000)]}]}}
    with translate_errors():
        return _jobs(db).update_many(late, [{"$set": {"status": "failed", "error": {"$literal": _UNSEEN}, "fresh_until": _in(failed_s)}}]).modified_count


def count_pending(db: Db) -> dict[str, int]:
    """Count those that wait and those that are being worked on: ``{"queued": n, "processing": n}``."""
    with translate_errors():
        return {status: _jobs(db).count_documents({"status": status}) for status in _PENDING}


def has_claimable(db: Db) -> bool:
    """Say whether any inspection could be claimed now."""
    with translate_errors():
        return _jobs(db).find_one({"status": "queued", "$expr": {"$lte": ["$not_before", "$$NOW"]}}, {"_id": 1}, hint="claimable") is not None


def _end(db: Db, owner: str, job: Job, change: Document, fresh_s: float, keep_s: float) -> bool:
    change |= {"fresh_until": _in(fresh_s), "expires_at": _in(keep_s), "owner": None}
    with translate_errors():
        return bool(_jobs(db).update_one(_held(owner, job), [{"$set": change}]).modified_count)


def _held(owner: str, job: Job) -> Document:
    return {"_id": job.id, "status": "processing", "owner": owner, "fence": job.fence}


def _in(seconds: float) -> Document:
    return {"$add": ["$$NOW", int(seconds * 1000)]}


def _jobs(db: Db) -> Collection[Document]:
    return db.get_collection("inspections", write_concern=WriteConcern(w=1))


def _read(document: Document, asked_for_s: float = 0.0) -> Job:
    seen = document.get("seen")
    return Job(
        id=document["_id"],
        status=document["status"],
        source=Source(document["url"], document["upload"]),
        recipe=recipes.from_document(document["recipe"]),
        fresh_for_s=max(0.0, (document.get("fresh_for_ms") or 0) / 1000),
        result=document.get("result"),
        error=document.get("error"),
        seen=Seen(**seen) if seen else None,
        fence=document["fence"],
        asked_for_s=asked_for_s,
    )
