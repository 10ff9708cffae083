"""Claims of images by workers: which images are claimed next, and when a released image may be tried again.

How a claim is held, renewed and lost is defined by ``shared.queue.leases``. The owner of a claim is one pool child.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.ledger import store_rotation
from shared.queue.leases import Lease, LeasedCollection
from shared.states import retry_delay_s
from shared.storage.mongo import Db, Document, translate_errors

LEASES: Final = LeasedCollection(
    "images",
    subdocument="work",
    token_field="claim",  # noqa: S106 -- the name of a field
    set_on_claim={"updated_at": "$$NOW"},
    set_on_requeue={"work.claim": None, "work.lease_until": None, "updated_at": "$$NOW"},
    releases="releases",
)
_ROUNDS: Final = 12
_STORES_PER_CLAIM: Final = 16
_GROWING_DELAYS: Final = 6


@dataclass(frozen=True, slots=True)
class Claim:
    """Image documents held by ``owner``. ``full``: more images are probably claimable."""

    owner: str
    images: list[Document]
    full: bool

    @property
    def leases(self) -> list[Lease]:
        """The leases of the images."""
        return [LEASES.lease(image) for image in self.images]


def claim(db: Db, owner: str, size: int, lease_s: float) -> Claim:
    """Claim up to ``size`` queued images, those of the least recently served store first.

    While other stores wait, one store gets at most half of a claim. An image that must be tried alone is claimed alone.
    When other workers were faster, the images are chosen again; an empty claim means that no image was claimable.

    :param lease_s: seconds until the claim ends unless it is renewed.
    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        for _ in range(_ROUNDS):
            turns = store_rotation.list_waiting(db, min(size, _STORES_PER_CLAIM))
            if not turns:
                break
            picked, stores, idle = _pick(db, turns, size)
            if idle:
                _defer_idle(db, idle)
            if not picked:
                continue
            store_rotation.move_to_end(db, stores)
            images = LEASES.claim_many(db, picked, owner, lease_s)
            if images:
                return Claim(owner, images, full=len(picked) >= size or images[0]["work"]["solo"])
    return Claim(owner, [], full=False)


def has_claimable(db: Db) -> bool:
    """Whether any image could be claimed now.

    :raises StoreAway: MongoDB does not answer.
    """
    return LEASES.has_claimable(db)


def renew(db: Db, leases: Sequence[Lease], owner: str, lease_s: float) -> set[Lease]:
    """Extend leases to ``lease_s`` seconds from now.

    :returns: the leases that are still held. Any other one was lost: nothing more may be written under it.
    :raises StoreAway: MongoDB does not answer.
    """
    return LEASES.renew(db, owner, leases, lease_s)


def release(
    db: Db,
    leases: Sequence[Lease],
    owner: str,
    reason: str,
    *,
    delay: bool = True,
    solo: bool = False,
    fault: bool = False,
) -> int:
    """Queue unfinished images again: the environment failed, the worker stops, or processing of one of them failed.

    :param reason: a short code that is stored with the image.
    :param delay: wait before the next attempt, longer each time (1 s .. 30 s).
    :param solo: try each image alone next: one of them may be the reason.
    :param fault: count a fault against each image that was tried alone; failures of the environment never count.
    :returns: how many were still held.
    :raises StoreAway: MongoDB does not answer.
    """
    if not leases:
        return 0
    delays_ms = {"$switch": {"branches": [
        {"case": {"$lte": ["$work.releases", n]}, "then": int(retry_delay_s(n) * 1000)} for n in range(_GROWING_DELAYS)
    ], "default": int(retry_delay_s(_GROWING_DELAYS) * 1000)}}  # fmt: skip
    change: dict[str, Any] = {"work.released_for": {"$literal": reason}}
    if solo:
        change["work.solo"] = True
    if fault:
        change["work.faults"] = {"$add": ["$work.faults", {"$cond": ["$work.solo", 1, 0]}]}
    stores = _stores(db, LEASES.guard_many(owner, leases))
    released = LEASES.release(db, owner, leases, delay_ms=delays_ms if delay else 0, change=change)
    store_rotation.touch(db, stores)
    return released


def expire_leases(db: Db, limit: int = 1000) -> int:
    """Queue the images of vanished workers again (sweep). Each is tried alone next: one of them may be the reason.

    :returns: how many leases had ended, at most ``limit``.
    :raises StoreAway: MongoDB does not answer.
    """
    with translate_errors():
        ids = [image["_id"] for image in db.images.find(LEASES.expired(), {"_id": 1}).limit(limit)]
    if not ids:
        return 0
    among = {"_id": {"$in": ids}}
    stores = _stores(db, among | LEASES.expired())
    ended = LEASES.expire(db, among=among, change={"work.solo": True})
    store_rotation.touch(db, stores)
    return ended


def _stores(db: Db, images: Document) -> set[str]:
    """Return the names of the stores that some images belong to."""
    with translate_errors():
        return {image["store_name"] for image in db.images.find(images, {"store_name": 1})}


def _pick(db: Db, turns: list[Document], size: int) -> tuple[list[str], list[str], list[Document]]:
    """Choose image ids for one claim.

    :returns: the ids, the stores they belong to, and the turns of the stores that had no claimable image.
    """
    claimable: list[tuple[Document, list[str]]] = []
    idle: list[Document] = []
    for turn in turns:
        found = db.images.find({**LEASES.claimable(), "store_name": turn["_id"]}, {"work.solo": 1}, hint="claimable")
        rows = list(found.sort("_id", 1).limit(size).batch_size(size))
        if not rows:
            idle.append(turn)
            continue
        if rows[0]["work"]["solo"]:
            if not claimable:  # it is this store's turn, and the image must be alone
                return [rows[0]["_id"]], [turn["_id"]], idle
            continue
        claimable.append((turn, [row["_id"] for row in rows if not row["work"]["solo"]]))
    half = max(1, size // 2)
    share = size if len(claimable) == 1 else half
    picked: list[str] = []
    stores: list[str] = []
    for turn, ids in claimable:
        part = ids[: min(share, size - len(picked))]
        if part:
            picked += part
            stores.append(turn["_id"])
    for _, ids in claimable:  # no other store needs the remaining places
        picked += ids[share : share + size - len(picked)]
    return picked, stores, idle


def _defer_idle(db: Db, idle: list[Document]) -> None:
    """Remove stores without queued images from the rotation; move those with images for later to its end."""
    later = []
    for turn in idle:
        if db.images.find_one({"status": "queued", "store_name": turn["_id"]}, {"_id": 1}, hint="claimable") is None:
            store_rotation.remove(db, turn)
        else:
            later.append(turn["_id"])
    store_rotation.move_to_end(db, later)
