"""Claims on images: which images a worker claims next, and when a released image can be claimed once more.

``shared.queue.leases`` defines how a claim is held, renewed and lost. The owner of a claim is one pool child.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.ledger import store_rotation
from shared.queue.leases import Lease, LeasedCollection
from shared.states import READ_ERRORS_ALLOWED, SOLO_DEATHS_ALLOWED, SOLO_LOSSES_ALLOWED, ImageState, retry_delay_s
from shared.storage.mongo import Db, Document, translate_errors

LEASES: Final = LeasedCollection(
    "images",
    subdocument="work",
    token_field="claim",  # noqa: S106 -- this is the name of a field, not a password
    set_on_claim={"updated_at": "$$NOW"},
    cleared=("claim", "lease_until"),
    set_on_requeue={"updated_at": "$$NOW"},
    releases="releases",
)
MAX_BYTES: Final = 64 * 1024 * 1024
"""Maximum total size, in bytes, of the originals in a claim, unless the caller sets another limit."""
_ROUNDS: Final = 12
_STORES_PER_CLAIM: Final = 16
_GROWING_DELAYS: Final = 6


@dataclass(frozen=True, slots=True)
class Claim:
    """The images that one claim holds.

    ``owner`` is the name of the pool child that holds the claim. ``images`` are the documents of the images. ``full``
    is True if the claim could not have held more images, so further images are probably claimable.
    """

    owner: str
    images: list[Document]
    full: bool

    @property
    def leases(self) -> list[Lease]:
        """The leases of the images."""
        return [LEASES.lease(image) for image in self.images]


def claim(db: Db, owner: str, size: int, lease_s: float, *, max_bytes: int = MAX_BYTES) -> Claim:
    """Claim up to ``size`` queued images, starting with the store that has not been served for the longest time.

    While other stores wait, the images of one store fill at most half of a claim, in images and in bytes. An image that
    must be processed alone is claimed alone. If other workers have claimed the chosen images first, the function
    chooses other images. An empty claim means that no image was claimable.

    :param lease_s: seconds until the claim ends unless it is renewed.
    :param max_bytes: maximum total size of the originals. A single image that is larger is claimed alone.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        for _ in range(_ROUNDS):
            turns = store_rotation.list_waiting(db, min(size, _STORES_PER_CLAIM))
            if not turns:
                break
            choice = _choose(db, turns, size, max_bytes)
            if choice.idle:
                _defer_idle(db, choice.idle)
            if not choice.images:
                continue
            store_rotation.move_to_end(db, choice.stores)
            images = LEASES.claim_many(db, choice.images, owner, lease_s)
            if images:
                return Claim(owner, images, choice.full)
    return Claim(owner, [], full=False)


def has_claimable(db: Db) -> bool:
    """Return whether any image can be claimed now.

    :raises StoreAway: when MongoDB does not respond.
    """
    return LEASES.has_claimable(db)


def count_queued(db: Db, *, at_most: int) -> int:
    """Return the number of queued images, or ``at_most`` if there are more. Images that must wait are included.

    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        return db.images.count_documents({"status": ImageState.QUEUED.value}, limit=at_most, hint="rare_states")


def renew(db: Db, owner: str, leases: Sequence[Lease], lease_s: float) -> set[Lease]:
    """Renew leases, so that each ends ``lease_s`` seconds from now.

    :returns: the leases that are still held. The other leases were lost, so their holder must not write any more.
    :raises StoreAway: when MongoDB does not respond.
    """
    return LEASES.renew(db, owner, leases, lease_s)


def begin_solo(db: Db, owner: str, lease: Lease) -> bool:
    """Record that the processing of an image begins that is processed alone.

    If the process dies before it stores a result, ``expire_leases`` counts the attempt.

    :returns: whether ``owner`` still holds the image. If not, it must not be processed.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        begun = db.images.update_one(LEASES.guard(owner, lease), {"$set": {"work.begun": lease.fence}})
    return bool(begun.matched_count)


def is_exhausted(image: Document) -> bool:
    """Return whether so many attempts to process an image alone have failed that it fails with ``decoder_crash``."""
    faults, losses = image["work"]["faults"], image["work"].get("losses", 0)
    return bool(faults >= SOLO_DEATHS_ALLOWED or losses >= SOLO_LOSSES_ALLOWED)


def is_unreadable(image: Document) -> bool:
    """Return whether this is the last attempt to read the bytes of a claimed image (``READ_ERRORS_ALLOWED``)."""
    return int(image["work"].get("read_errors", 0)) + 1 >= READ_ERRORS_ALLOWED


def release(
    db: Db,
    owner: str,
    leases: Sequence[Lease],
    reason: str,
    *,
    delay: bool = True,
    solo: bool = False,
    fault: bool = False,
    loss: bool = False,
    read_error: bool = False,
) -> int:
    """Requeue images that their owner will not finish.

    Callers use this function when the environment fails, the worker stops, or the processing of an image fails.

    :param reason: short code that is stored with each image.
    :param delay: whether each image must wait before its next attempt. The delay grows with each release
        (from 1 s to 30 s).
    :param solo: whether each image is processed alone in its next attempt, because one of them may have caused the
        failure.
    :param fault: whether to count the attempt (``SOLO_DEATHS_ALLOWED``) of each image that was processed alone.
        Failures that the environment causes must not be counted.
    :param loss: the same for an attempt in which a process was killed, perhaps by the image (``SOLO_LOSSES_ALLOWED``).
    :param read_error: whether to count an attempt in which the bytes of an image could not be read
        (``READ_ERRORS_ALLOWED``), whether or not it was processed alone.
    :returns: the number of images that were still held.
    :raises StoreAway: when MongoDB does not respond.
    """
    if not leases:
        return 0
    change: dict[str, Any] = {"work.released_for": {"$literal": reason}}
    if solo:
        change["work.solo"] = True
    if fault:
        change["work.faults"] = _increased("$work.faults", "$work.solo")
    if loss:
        change["work.losses"] = _increased("$work.losses", "$work.solo")
    if read_error:
        change["work.read_errors"] = _increased("$work.read_errors", condition=True)
    stores = _stores(db, LEASES.guard_many(owner, leases))
    delay_ms = _growing_delay_ms("$work.releases") if delay else 0
    released = LEASES.release(db, owner, leases, delay_ms=delay_ms, change=change)
    store_rotation.touch(db, stores)
    return released


def expire_leases(db: Db, limit: int = 1000) -> int:
    """Requeue images whose lease has expired because their worker has died (called by the sweep).

    Each image is processed alone in its next attempt, because one of them may have caused the death of the worker. If
    the processing of an image alone had begun, the attempt is counted (``SOLO_LOSSES_ALLOWED``), and the image waits
    longer after each such attempt (from 1 s to 30 s).

    :param limit: maximum number of images to requeue.
    :returns: the number of images that were requeued.
    :raises StoreAway: when MongoDB does not respond.
    """
    with translate_errors():
        ids = [image["_id"] for image in db.images.find(LEASES.expired(), {"_id": 1}).limit(limit)]
    if not ids:
        return 0
    among = {"_id": {"$in": ids}}
    stores = _stores(db, among | LEASES.expired())
    begun = {"$and": ["$work.solo", {"$eq": ["$work.begun", "$work.fence"]}]}
    ended = LEASES.expire(
        db,
        among=among,
        delay_ms={"$cond": [begun, _growing_delay_ms("$work.losses"), 0]},
        change={"work.solo": True, "work.losses": _increased("$work.losses", begun)},
    )
    store_rotation.touch(db, stores)
    return ended


def _increased(count: str, condition: Any) -> Document:
    """Return an expression for a count, increased by one if a condition is true. A missing count is 0."""
    return {"$add": [{"$ifNull": [count, 0]}, {"$cond": [condition, 1, 0]}]}


def _growing_delay_ms(count: str) -> Document:
    """Return an expression for ``retry_delay_s`` of a count, in milliseconds. A missing count is 0."""
    known = {"$ifNull": [count, 0]}
    delays = [{"case": {"$lte": [known, n]}, "then": int(retry_delay_s(n) * 1000)} for n in range(_GROWING_DELAYS)]
    return {"$switch": {"branches": delays, "default": int(retry_delay_s(_GROWING_DELAYS) * 1000)}}


def _stores(db: Db, images: Document) -> set[str]:
    """Return the names of all stores with an image that matches the filter ``images``."""
    with translate_errors():
        return {image["store_name"] for image in db.images.find(images, {"store_name": 1})}


@dataclass(slots=True)
class _Choice:
    """The images to claim, by id, and the stores that they belong to.

    ``idle`` are the turns (see ``store_rotation``) of stores without a claimable image. ``full`` is the attribute of
    the claim.
    """

    images: list[str]
    stores: list[str]
    idle: list[Document]
    full: bool = False

    def add(self, store: str, images: list[str]) -> None:
        """Add images of a store."""
        if images:
            self.images += images
            self.stores.append(store)


@dataclass(slots=True)
class _Room:
    """What fits into a claim besides the images that have been chosen."""

    images: int
    bytes: int

    def take(self, rows: list[Document], images: int, size: int, *, least: int = 0) -> list[str]:
        """Move the first rows to the claim that fit into it and into a share, and return their ids.

        :param images: maximum number of images in the share.
        :param size: maximum bytes of the share.
        :param least: number of images to take regardless of their bytes.
        """
        images, size = min(images, self.images), min(size, self.bytes)
        taken = total = 0
        for row in rows[:images]:
            if taken >= least and total + row["file_size"] > size:
                break
            taken += 1
            total += row["file_size"]
        self.images -= taken
        self.bytes -= total
        ids = [row["_id"] for row in rows[:taken]]
        del rows[:taken]
        return ids


def _choose(db: Db, turns: list[Document], size: int, max_bytes: int) -> _Choice:
    """Choose the images for one claim. Of each store, only as many images are read as the claim can still hold."""
    choice, room = _Choice([], [], []), _Room(size, max_bytes)
    left: dict[str, list[Document]] = {}
    others_wait = False
    for turn in turns:
        if room.images <= 0 or room.bytes <= 0:
            others_wait = True
            break
        rows = _find_claimable(db, turn["_id"], room.images)
        if not rows:
            choice.idle.append(turn)
            continue
        if rows[0]["work"]["solo"]:
            if not left:  # no earlier store has a claimable image, and this image must be claimed alone
                return _Choice([rows[0]["_id"]], [turn["_id"]], choice.idle, full=True)
            others_wait = True
            continue
        together = [row for row in rows if not row["work"]["solo"]]
        part = room.take(together, max(1, size // 2), max_bytes // 2, least=0 if left else 1)
        choice.add(turn["_id"], part)
        left[turn["_id"]] = together
        if not part and together[0]["file_size"] > room.bytes:
            break  # this store is served first in the next claim, so its large image does not wait long
    for store, rows in left.items():  # fill the remaining room with further images of these stores
        choice.add(store, room.take(rows, size, max_bytes))
    may_be_more_stores = len(turns) == _STORES_PER_CLAIM and not choice.idle
    choice.full = room.images <= 0 or others_wait or may_be_more_stores or any(left.values())
    return choice


def _find_claimable(db: Db, store: str, limit: int) -> list[Document]:
    """Return the oldest claimable images of a store, with the fields that a claim depends on."""
    fields = {"work.solo": 1, "file_size": 1}
    found = db.images.find({**LEASES.claimable(), "store_name": store}, fields, hint="claimable")
    return list(found.sort("_id", 1).limit(limit).batch_size(limit))


def _defer_idle(db: Db, idle: list[Document]) -> None:
    """Remove stores without queued images from the rotation, and move all other stores in ``idle`` to its end.

    The other stores have queued images, but none of these images can be claimed yet.

    :param idle: the turns of stores without a claimable image.
    """
    later = []
    for turn in idle:
        if db.images.find_one({"status": "queued", "store_name": turn["_id"]}, {"_id": 1}, hint="claimable") is None:
            store_rotation.remove(db, turn)
        else:
            later.append(turn["_id"])
    store_rotation.move_to_end(db, later)
