"""The turns of accounts and of their stores: they determine whose images are claimed next.

The account that has not been served for the longest time comes first. Within an account, images of a higher priority come
first, and among stores with images of the same priority, the store that has not been served for the longest time. Each
account that has, or recently had, queued images has one small document (``account_turns``), and so has each of its stores
for each priority (``store_turns``). A store that belongs to two accounts has a turn in each.

The field ``seq`` of a turn increases whenever images arrive. A claim that finds no image removes a turn from the rotation
only if ``seq`` is unchanged, so images that have arrived in the meantime are not forgotten. ``touch`` writes the turn of the
store before that of the account, and a claim reads them in the other order, so the account of a waiting store is never
removed. The function ``repair`` restores turns that were lost in a crash, or that code of the version before did not write. The
sweep calls it for all turns, and a claim that finds no turn for the first few.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import UpdateOne
from pymongo.collection import Collection as MongoCollection
from pymongo.cursor import Cursor
from pymongo.write_concern import WriteConcern

from shared.priorities import NORMAL, PRIORITIES, Priority
from shared.storage.mongo import Db, Document, translate_errors

CLAIMABLE: Final = "claimable_by_turn"
"""The index of the queued images, in the order (account, priority, store, id)."""
FIELDS: Final = {"account": 1, "work.priority": 1, "store_name": 1}
"""The projection of an image that ``turn_of`` needs."""
_CLAIMABLE_KEYS: Final = ("account", "work.priority", "store_name", "_id")
NO_ACCOUNT: Final = "open"
"""Stands for the account of the images that were accepted while access was open. No account has this name."""


class Turn(NamedTuple):
    """What takes turns: the images of one priority that a store has in an account. ``account`` is None if access was open."""

    account: str | None
    priority: Priority
    store: str

    @property
    def account_id(self) -> str:
        """The id of the account's turn."""
        return NO_ACCOUNT if self.account is None else self.account

    @property
    def rank(self) -> int:
        """The position of the priority; 0 is the highest."""
        return PRIORITIES.index(self.priority)

    @property
    def id(self) -> str:
        """The id of the store's turn. An account contains no slash, so no two turns have the same id."""
        return f"{self.account_id}/{self.rank}/{self.store}"


class StoreTurn(NamedTuple):
    """A store in the rotation. ``seq`` is that of its document."""

    turn: Turn
    seq: int


@dataclass(frozen=True, slots=True)
class AccountTurn:
    """An account in the rotation, with its first stores in the order of their turns. ``seq`` is that of its document."""

    id: str
    seq: int
    stores: tuple[StoreTurn, ...]


def turn_of(image: Document) -> Turn:
    """Return the turn of a stored image, of which the fields ``FIELDS`` are needed."""
    return Turn(image.get("account"), image.get("work", {}).get("priority", NORMAL), image["store_name"])


def find_images(db: Db, turn: Turn, condition: Document, fields: Document) -> Cursor[Document]:
    """Return the queued images of a turn, the oldest first. Only their entries of one index are read.

    :param condition: a filter that includes the status ``queued``.
    """
    # A condition that a field is null has two ranges of keys. Explicit bounds make it one, also for accounts that are null.
    keys = (turn.account, None if turn.priority == NORMAL else turn.priority, turn.store)
    found = db.images.find(condition, fields, hint=CLAIMABLE).sort([(name, 1) for name in _CLAIMABLE_KEYS])
    return found.min(_bound(*keys, MinKey())).max(_bound(*keys, MaxKey()))


def touch(db: Db, turns: Iterable[Turn]) -> None:
    """Record that there are queued images with these turns.

    The writes are not journalled, because ``repair`` restores a record that was lost.

    :raises StoreAway: when MongoDB does not respond.
    """
    found = set(turns)
    stores = [_touched(turn.id, account=turn.account_id, rank=turn.rank, store=turn.store) for turn in sorted(found, key=lambda turn: turn.id)]
    accounts = [_touched(account) for account in sorted({turn.account_id for turn in found})]
    if stores:
        with translate_errors():
            _stores(db).bulk_write(stores, ordered=False)
            _accounts(db).bulk_write(accounts, ordered=False)


def list_waiting(
    db: Db, limit: int, *, without_accounts: Collection[str] = (), without_stores: Collection[str] = ()
) -> list[AccountTurn]:
    """Return the accounts with queued images, the least recently served one first, each with its first stores.

    The call is one command, which reads at most ``limit`` accounts, and ``limit`` stores of each, besides those to leave out.

    :param without_accounts: the ids of the turns of accounts to leave out.
    :param without_stores: the ids of the turns of stores to leave out. An account can be returned without any store.
    """
    waiting: Document = {"$match": {"pending": True} | _without(without_accounts)}
    waiting_stores: Document = {"$match": {"pending": True} | _without(without_stores)}
    stores = [waiting_stores, {"$sort": {"rank": 1, "served_at": 1}}, {"$limit": limit}, {"$project": {"rank": 1, "store": 1, "seq": 1}}]
    lookup = {"from": "store_turns", "localField": "_id", "foreignField": "account", "pipeline": stores, "as": "stores"}
    found = db.account_turns.aggregate([waiting, {"$sort": {"served_at": 1}}, {"$limit": limit}, {"$lookup": lookup}])
    return [_read_account(row) for row in found]


def move_to_end(db: Db, accounts: Sequence[str], stores: Sequence[Turn]) -> None:
    """Move accounts (by the ids of their turns) and stores to the end of the rotation, each in the given order."""
    for collection, ids in ((_stores(db), [turn.id for turn in stores]), (_accounts(db), list(accounts))):
        if ids:
            # With equal times, those that were first would always stay first, and be served more often than others.
            position = {"$indexOfArray": [{"$literal": ids}, "$_id"]}
            collection.update_many({"_id": {"$in": ids}}, [{"$set": {"served_at": {"$add": ["$$NOW", position]}}}])


def remove_store(db: Db, store: StoreTurn) -> None:
    """Remove a store from the rotation, unless images have arrived since its turn was read."""
    db.store_turns.update_one({"_id": store.turn.id, "seq": store.seq}, {"$set": {"pending": False}})


def remove_account(db: Db, account: AccountTurn) -> None:
    """Remove an account from the rotation, unless images have arrived since its turn was read."""
    db.account_turns.update_one({"_id": account.id, "seq": account.seq}, {"$set": {"pending": False}})


def repair(db: Db, after: Turn | None = None, limit: int = 500) -> tuple[list[Turn], Turn | None]:
    """Add the turns to the rotation that have queued images but are missing from it (called by the sweep and by claims).

    A call takes one indexed read for each turn that it checks, no matter how many images have this turn. Repeated calls
    check all turns.

    :param after: the second value that the previous call returned.
    :param limit: maximum number of turns to check.
    :returns: the added turns, and the last checked turn, which is None if there are no more.
    :raises StoreAway: when MongoDB does not respond.
    """
    checked: list[Turn] = []
    with translate_errors():
        while len(checked) < limit:
            last = checked[-1] if checked else after
            image = _find_first_image(db, last)
            if image is None:
                break
            checked.append(turn_of(image))
        if not checked:
            return [], None
        missing = _find_missing(db, checked)
        touch(db, missing)
    return missing, checked[-1] if len(checked) == limit else None


def _find_first_image(db: Db, after: Turn | None) -> Document | None:
    """Return the first queued image in the order of the index, or the first whose turn comes after a turn."""
    found = db.images.find({"status": "queued"}, FIELDS, hint=CLAIMABLE).sort([(name, 1) for name in _CLAIMABLE_KEYS]).limit(1)
    if after is not None:
        priority = None if after.priority == NORMAL else after.priority
        found = found.min(_bound(after.account, priority, after.store, MaxKey()))
    return next(iter(found), None)


def _find_missing(db: Db, turns: Sequence[Turn]) -> list[Turn]:
    """Return those turns of which the store or the account is not in the rotation."""
    stores = {"_id": {"$in": [turn.id for turn in turns]}, "pending": True}
    accounts = {"_id": {"$in": sorted({turn.account_id for turn in turns})}, "pending": True}
    known = {row["_id"] for row in db.store_turns.find(stores, {"_id": 1})}
    known_accounts = {row["_id"] for row in db.account_turns.find(accounts, {"_id": 1})}
    return [turn for turn in turns if turn.id not in known or turn.account_id not in known_accounts]


def _without(ids: Collection[str]) -> Document:
    return {"_id": {"$nin": sorted(ids)}} if ids else {}


def _bound(*keys: Any) -> list[tuple[str, Any]]:
    return list(zip(_CLAIMABLE_KEYS, keys, strict=True))


def _touched(turn_id: str, **fields: Any) -> UpdateOne:
    change = {name: {"$literal": value} for name, value in fields.items()} | {
        "pending": True,
        "seq": {"$add": [{"$ifNull": ["$seq", 0]}, 1]},
        # A turn without queued images joins the end of the rotation, so the time without images gives it no advantage
        # over the turns that waited.
        "served_at": {"$cond": [{"$eq": ["$pending", True]}, "$served_at", "$$NOW"]},
    }
    return UpdateOne({"_id": turn_id}, [{"$set": change}], upsert=True)


def _read_account(row: Document) -> AccountTurn:
    account = None if row["_id"] == NO_ACCOUNT else row["_id"]
    stores = tuple(StoreTurn(Turn(account, PRIORITIES[store["rank"]], store["store"]), store["seq"]) for store in row["stores"])
    return AccountTurn(row["_id"], row["seq"], stores)


def _accounts(db: Db) -> MongoCollection[Document]:
    return db.get_collection("account_turns", write_concern=WriteConcern(w=1))


def _stores(db: Db) -> MongoCollection[Document]:
    return db.get_collection("store_turns", write_concern=WriteConcern(w=1))
