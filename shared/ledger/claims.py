"""A worker takes images, keeps them while it works, gives them back, or dies.

A claim is owner, lease and fence: the owner is one pool child, the lease ends by the server's clock, and the fence counts
up with every claim so that what an earlier holder writes late can be told apart and never lands.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.ledger import store_rotation
from shared.states import ImageState, retry_delay_s
from shared.storage.mongo import Db, Document, translate_errors

_ROUNDS: Final = 12
_STORES_PER_CLAIM: Final = 16
_GROWING_DELAYS: Final = 6


@dataclass(frozen=True, slots=True)
class Claim:
    """Image documents held by ``owner``. ``full``: there is likely more to claim."""

    owner: str
    images: list[Document]
    full: bool


def claim(db: Db, owner: str, size: int, lease_s: float) -> Claim:
    """Take up to ``size`` queued images, the store served least recently first.

    While others wait a store gets at most half. An image that is to be tried alone comes alone. When other workers were
    faster it picks again; an empty claim means that nothing was claimable.

    :param lease_s: seconds until the claim ends unless it is renewed.
    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        for _ in range(_ROUNDS):
            line = store_rotation.waiting(db, min(size, _STORES_PER_CLAIM))
            if not line:
                break
            picked, stores, idle = _pick(db, line, size)
            if idle:
                _rest(db, idle)
            if not picked:
                continue
            store_rotation.served(db, stores)
            images = _take(db, owner, picked, lease_s)
            if images:
                return Claim(owner, images, full=len(picked) >= size or images[0]["work"]["solo"])
    return Claim(owner, [], full=False)


def has_claimable(db: Db) -> bool:
    """Say whether any image could be claimed now."""
    with translate_errors():
        return db.images.find_one({"status": "queued", **_DUE}, {"_id": 1}, hint="claimable") is not None


def renew(db: Db, held: Sequence[tuple[str, int]], owner: str, lease_s: float) -> set[str]:
    """Put off the end of the leases of ``(image id, fence)`` pairs.

    :returns: the ids still held; any other was lost, and nothing more may be written for it.
    """
    fences = dict(held)
    mine = {"_id": {"$in": list(fences)}, "status": "processing", "work.owner": owner}
    with translate_errors():
        db.images.update_many(mine, [{"$set": {"work.lease_until": _in(lease_s)}}])
        found = db.images.find(mine, {"work.fence": 1})
        return {image["_id"] for image in found if image["work"]["fence"] == fences[image["_id"]]}


def release(
    db: Db, held: Sequence[tuple[str, int]], owner: str, reason: str, *, delay: bool = True, solo: bool = False, fault: bool = False
) -> int:
    """Give images back unfinished: the environment failed, the worker is leaving, or one of them could not be dealt with.

    :param reason: a short code, kept beside the image.
    :param delay: wait before the next attempt, longer each time (1 s .. 30 s).
    :param solo: try each alone next: one of them may be the reason.
    :param fault: count it against an image that was tried alone; the environment's failures never count.
    :returns: how many were still held.
    """
    waits = {"$switch": {"branches": [
        {"case": {"$lte": ["$work.releases", n]}, "then": int(retry_delay_s(n) * 1000)} for n in range(_GROWING_DELAYS)
    ], "default": int(retry_delay_s(_GROWING_DELAYS) * 1000)}}  # fmt: skip
    change: dict[str, Any] = {
        "work.not_before": {"$add": ["$$NOW", waits if delay else 0]},
        "work.releases": {"$add": ["$work.releases", 1]},
        "work.released_for": {"$literal": reason},
    }
    if solo:
        change["work.solo"] = True
    if fault:
        change["work.faults"] = {"$add": ["$work.faults", {"$cond": ["$work.solo", 1, 0]}]}
    guard = {"$or": [{"_id": image_id, "work.fence": fence} for image_id, fence in held], "work.owner": owner}
    return _requeue(db, guard, change) if held else 0


def expire_leases(db: Db, limit: int = 1000) -> int:
    """Queue the images whose worker has vanished; each is tried alone next, since one of them may be the reason (sweep)."""
    with translate_errors():
        over = {"status": "processing", "$expr": {"$lt": ["$work.lease_until", "$$NOW"]}}
        ids = [image["_id"] for image in db.images.find(over, {"_id": 1}).limit(limit)]
    if not ids:
        return 0
    return _requeue(db, {"_id": {"$in": ids}, **over}, {"work.solo": True, "work.not_before": "$$NOW"})


_DUE: Final[dict[str, Any]] = {"$expr": {"$lte": ["$work.not_before", "$$NOW"]}}


def _in(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(seconds * 1000)]}


def _pick(db: Db, line: list[Document], size: int) -> tuple[list[str], list[str], list[Document]]:
    """Choose image ids for one claim.

    :returns: ids, the stores they belong to, and the turns that had nothing due.
    """
    due: list[tuple[Document, list[str]]] = []
    idle: list[Document] = []
    for turn in line:
        found = db.images.find(
            {"status": "queued", "store_name": turn["_id"], **_DUE}, {"work.solo": 1}, hint="claimable"
        )
        rows = list(found.sort("_id", 1).limit(size).batch_size(size))
        if not rows:
            idle.append(turn)
            continue
        if rows[0]["work"]["solo"]:
            if not due:  # its store's turn, and it must be alone
                return [rows[0]["_id"]], [turn["_id"]], idle
            continue
        due.append((turn, [row["_id"] for row in rows if not row["work"]["solo"]]))
    half = max(1, size // 2)
    share = size if len(due) == 1 else half
    picked: list[str] = []
    taken: list[str] = []
    for turn, ids in due:
        part = ids[: min(share, size - len(picked))]
        if part:
            picked += part
            taken.append(turn["_id"])
    for _, ids in due:  # nobody else wants the rest
        picked += ids[share : share + size - len(picked)]
    return picked, taken, idle


def _rest(db: Db, idle: list[Document]) -> None:
    """Take stores without queued images out of the line; those that only wait for a later moment go to its end."""
    later = []
    for turn in idle:
        if db.images.find_one({"status": "queued", "store_name": turn["_id"]}, {"_id": 1}, hint="claimable") is None:
            store_rotation.rest(db, turn)
        else:
            later.append(turn["_id"])
    store_rotation.served(db, later)


def _take(db: Db, owner: str, ids: list[str], lease_s: float) -> list[Document]:
    token = uuid.uuid4().hex
    taken = db.images.update_many(
        {"_id": {"$in": ids}, "status": "queued"},
        [
            {
                "$set": {
                    "status": ImageState.PROCESSING.value,
                    "updated_at": "$$NOW",
                    "work.owner": owner,
                    "work.claim": token,
                    "work.lease_until": _in(lease_s),
                    "work.fence": {"$add": ["$work.fence", 1]},
                }
            }
        ],
    )
    if not taken.modified_count:
        return []
    return list(db.images.find({"_id": {"$in": ids}, "work.claim": token}).sort("_id", 1).batch_size(len(ids)))


def _requeue(db: Db, guard: dict[str, Any], change: dict[str, Any]) -> int:
    with translate_errors():
        held = {**guard, "status": "processing"}
        stores = {image["store_name"] for image in db.images.find(held, {"store_name": 1})}
        freed = {"work.owner": None, "work.claim": None, "work.lease_until": None, "updated_at": "$$NOW"}
        done = db.images.update_many(held, [{"$set": {"status": "queued", **freed, **change}}])
        store_rotation.touch(db, stores)
        return done.modified_count
