"""How long the work that waits for workers has not been taken up."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from shared.ledger import turns
from shared.ledger.turns import NO_ACCOUNT, Turn
from shared.priorities import PRIORITIES
from shared.states import ImageState
from shared.storage.mongo import Db, Document, deadline

_DEADLINE_S: Final = 30.0
_ACCOUNTS: Final = 16
_STORES: Final = 4
_IMAGES: Final = 500


@dataclass(frozen=True, slots=True)
class Wait:
    """A batch with a queued image, and for how many seconds no worker has taken up images of the account of that image."""

    batch_id: str
    seconds: float


class _Account(NamedTuple):
    """A waiting account, and the time when it was last served or joined the rotation. No image of it has waited for longer."""

    id: str
    served_at: datetime


class _Since(NamedTuple):
    """Since when a batch waits."""

    time: datetime
    batch_id: str


def find_wait(db: Db) -> Wait | None:
    """Return the longest wait that is found; None if no image is queued.

    A wait lasts since an image was accepted or, if that was later, since it was last queued or since its account was last served
    (``turns``). So the workers end it when they take up images of the account again, however many are queued, and in which
    order the account has them processed. An image that a worker holds or is to try again later does not prolong it.

    Usually, the call reads one image and up to 17 turns. If others may have waited longer than the image with the smallest id, as
    when an old batch is processed again, the call also reads their images: of up to 16 accounts, 4 stores of each, and 500
    images of each store. If a store has more, only the first 500 count.

    :raises StoreAway: also when the reads take longer than 30 seconds.
    """
    with deadline(_DEADLINE_S):
        first = _read_first(db)
        if first is None:
            return None
        longest, now = first
        for account in _list_accounts(db):
            if longest.time <= account.served_at:
                break
            for wait in _list_waits(db, account):
                longest = min(longest, wait)
                if longest.time <= account.served_at:
                    break
    return Wait(longest.batch_id, max(0.0, (now - longest.time).total_seconds()))


def _read_first(db: Db) -> tuple[_Since, datetime] | None:
    """Return since when the queued image with the smallest id waits, and the time of the read."""
    since = {"$max": ["$created_at", "$work.queued_at", {"$max": "$turns.served_at"}]}
    found = db.images.aggregate(
        [
            {"$match": {"status": ImageState.QUEUED.value}},
            {"$sort": {"batch_id": 1}},
            {"$limit": 1},
            {"$set": {"turn": {"$ifNull": ["$account", NO_ACCOUNT]}}},
            {"$lookup": {"from": "account_turns", "localField": "turn", "foreignField": "_id", "as": "turns"}},
            {"$project": {"batch_id": 1, "since": since, "now": "$$NOW"}},
        ],
        hint="rare_states",
    )
    first = next(iter(found), None)
    return None if first is None else (_Since(first["since"], first["batch_id"]), first["now"])


def _list_accounts(db: Db) -> list[_Account]:
    """Return the waiting accounts, the least recently served one first."""
    rows = db.account_turns.find({"pending": True}, {"served_at": 1}).sort("served_at", 1).limit(_ACCOUNTS)
    return [_Account(row["_id"], row["served_at"]) for row in rows]


def _list_waits(db: Db, account: _Account) -> Iterator[_Since]:
    """Yield since when the images of each of the first stores of an account wait, the least recently served store first."""
    # With the ranks named, MongoDB merges their entries of the index in the order of the time.
    waiting = {"account": account.id, "pending": True, "rank": {"$in": list(range(len(PRIORITIES)))}}
    account_id = None if account.id == NO_ACCOUNT else account.id
    for store in db.store_turns.find(waiting, {"rank": 1, "store": 1}).sort("served_at", 1).limit(_STORES):
        turn = Turn(account_id, PRIORITIES[store["rank"]], store["store"])
        fields = {"batch_id": 1, "created_at": 1, "work.queued_at": 1}
        images = turns.find_images(db, turn, {"status": ImageState.QUEUED.value}, fields).limit(_IMAGES)
        first = min(images, key=_begin, default=None)
        if first is not None:
            yield _Since(max(_begin(first), account.served_at), first["batch_id"])


def _begin(image: Document) -> datetime:
    """Return when an image was accepted or, if that was later, last queued."""
    begin: datetime = max(image["created_at"], image["work"].get("queued_at") or image["created_at"])
    return begin
