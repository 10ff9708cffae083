"""Claims on images: which images a worker claims next, and when a released image can be claimed once more.

``shared.queue.leases`` defines how a claim is held, renewed and lost. The owner of a claim is one pool child.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shared.ledger import claim_shares, timelines, turns
from shared.ledger.claim_shares import Candidate, Choice
from shared.ledger.turns import AccountTurn, Turn
from shared.queue.leases import Lease, LeasedCollection
from shared.states import READ_ERRORS_ALLOWED, SOLO_DEATHS_ALLOWED, SOLO_LOSSES_ALLOWED, ImageState, retry_delay_s
from shared.storage.mongo import Db, Document, translate_errors

LEASES: Final = LeasedCollection(
    "images",
    subdocument="work",
    token_field="claim",  # noqa: S106 -- this is the name of a field, not a password
    set_on_claim={"updated_at": "$$NOW"} | timelines.CLAIMED,
    cleared=("claim", "lease_until", "claimed_at"),
    set_on_requeue={"updated_at": "$$NOW"},
    releases="releases",
    claimable_index=turns.CLAIMABLE,
)
MAX_BYTES: Final = 64 * 1024 * 1024
"""Maximum total size, in bytes, of the originals in a claim, unless the caller sets another limit."""
_ROUNDS: Final = 12
_LISTED: Final = 16
"""Maximum number of accounts that a claim considers at a time, and of stores of each."""
_REPAIRED: Final = 16
"""Maximum number of turns that a claim checks if it finds none in the rotation."""
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


@dataclass(slots=True)
class _Deferred:
    """The turns, by their ids, that have queued images, none of which can be claimed yet. A claim does not list them again.

    ``with_stores`` are the accounts of the stores.
    """

    accounts: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    with_stores: set[str] = field(default_factory=set)


def claim(db: Db, owner: str, size: int, lease_s: float, *, max_bytes: int = MAX_BYTES) -> Claim:
    """Claim up to ``size`` queued images, starting with the account that has not been served for the longest time.

    While other accounts wait, the images of one account fill at most half of a claim, in images and in bytes; within it,
    priorities and stores take turns (``claim_shares``). An image that must be processed alone is claimed alone. If other
    workers have claimed the chosen images first, the function chooses other images. Stores whose images all wait for a retry make
    room for others of their account, also of lower priorities. An empty claim means that no image was
    claimable, or that only such stores were found.

    :param lease_s: seconds until the claim ends unless it is renewed.
    :param max_bytes: maximum total size of the originals. A single image that is larger is claimed alone.
    :raises StoreAway: when MongoDB does not respond.
    """
    listed, deferred, repaired = min(size, _LISTED), _Deferred(), False
    with translate_errors():
        for left in reversed(range(_ROUNDS)):
            waiting = turns.list_waiting(db, listed, without_accounts=deferred.accounts, without_stores=deferred.stores)
            if not waiting:
                if repaired or not turns.repair(db, limit=_REPAIRED)[0]:
                    break
                repaired = True
                deferred.accounts.clear()  # they may have one of the restored stores
                continue
            choice = _choose(db, waiting, size, max_bytes, listed)
            if _defer_idle(db, choice, listed, deferred, is_last=not left) and left:
                listed = _LISTED
                continue
            if not choice.images:
                continue
            turns.move_to_end(db, choice.served_accounts, choice.served_stores)
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
    change: dict[str, Any] = {"work.released_for": {"$literal": reason}} | timelines.append_attempt("released", reason)
    if solo:
        change["work.solo"] = True
    if fault:
        change["work.faults"] = _increased("$work.faults", "$work.solo")
    if loss:
        change["work.losses"] = _increased("$work.losses", "$work.solo")
    if read_error:
        change["work.read_errors"] = _increased("$work.read_errors", condition=True)
    waiting = _find_turns(db, LEASES.guard_many(owner, leases))
    delay_ms = _growing_delay_ms("$work.releases") if delay else 0
    released = LEASES.release(db, owner, leases, delay_ms=delay_ms, change=change)
    turns.touch(db, waiting)
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
    waiting = _find_turns(db, among | LEASES.expired())
    begun = {"$and": ["$work.solo", {"$eq": ["$work.begun", "$work.fence"]}]}
    ended = LEASES.expire(
        db,
        among=among,
        delay_ms={"$cond": [begun, _growing_delay_ms("$work.losses"), 0]},
        change={"work.solo": True, "work.losses": _increased("$work.losses", begun)} | timelines.append_attempt("expired", None),
    )
    turns.touch(db, waiting)
    return ended


def _increased(count: str, condition: Any) -> Document:
    """Return an expression for a count, increased by one if a condition is true. A missing count is 0."""
    return {"$add": [{"$ifNull": [count, 0]}, {"$cond": [condition, 1, 0]}]}


def _growing_delay_ms(count: str) -> Document:
    """Return an expression for ``retry_delay_s`` of a count, in milliseconds. A missing count is 0."""
    known = {"$ifNull": [count, 0]}
    delays = [{"case": {"$lte": [known, n]}, "then": int(retry_delay_s(n) * 1000)} for n in range(_GROWING_DELAYS)]
    return {"$switch": {"branches": delays, "default": int(retry_delay_s(_GROWING_DELAYS) * 1000)}}


def _find_turns(db: Db, images: Document) -> set[Turn]:
    """Return the turns of all images that match the filter ``images``."""
    with translate_errors():
        return {turns.turn_of(image) for image in db.images.find(images, turns.FIELDS)}


def _choose(db: Db, waiting: list[AccountTurn], size: int, max_bytes: int, listed: int) -> Choice:
    def read(turn: Turn, limit: int) -> list[Candidate]:
        fields = {"work.solo": 1, "file_size": 1}
        found = turns.find_images(db, turn, LEASES.claimable(), fields).limit(limit).batch_size(limit)
        return [Candidate(image["_id"], image["file_size"], image["work"]["solo"]) for image in found]

    return claim_shares.choose(waiting, read, size, max_bytes, listed=listed)


def _defer_idle(db: Db, choice: Choice, listed: int, deferred: _Deferred, *, is_last: bool) -> bool:
    """Remove turns without queued images from the rotation, and move all other turns without a claimable image to its end.

    An account of which further stores may wait keeps its place, so that the next round can consider these stores.

    :param deferred: gets the turns that were moved.
    :param is_last: whether there is no next round.
    :returns: whether there is such an account.
    """
    waiting = []
    for store in choice.idle_stores:
        queued = turns.find_images(db, store.turn, {"status": ImageState.QUEUED.value}, {"_id": 1})
        if next(iter(queued.limit(1)), None) is None:
            turns.remove_store(db, store)
        else:
            waiting.append(store.turn)
    deferred.stores.update(turn.id for turn in waiting)
    deferred.with_stores.update(turn.account_id for turn in waiting)
    unread = {account.id for account in choice.idle_accounts if len(account.stores) == listed}
    idle = []
    for account in choice.idle_accounts:
        if account.id in deferred.with_stores or account.id in unread:
            idle.append(account.id)
        else:
            turns.remove_account(db, account)
    moved = [account for account in idle if is_last or account not in unread]
    deferred.accounts.update(moved)
    turns.move_to_end(db, moved, waiting)
    return bool(unread)
