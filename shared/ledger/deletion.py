"""A batch goes: first out of sight with its fences raised, then its files, once more its files, then its documents."""

import pymongo
from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern

from shared.errors import NotFound, StoreAway, TooSlow
from shared.ledger import page_index
from shared.storage.mongo import Db, translate_errors


def begin_delete(db: Db, batch_id: str, *, deadline_s: float = 10.0) -> None:
    """Take a batch out of every list and raise its fences, in one transaction with the ledger's line.

    From here on nobody can claim, finish or show its images; a file server that does not ask us shows what is published until
    the files are gone. So the caller removes them at once, the sweep soon after, should the caller have died, and once more
    after the longest lease, because a frozen worker may still write one.

    :param deadline_s: limit of all attempts together; the driver alone would go on for two minutes.
    :raises NotFound: unknown, or already deleted.
    :raises StoreAway: MongoDB does not answer; the deletion may have taken place, and asking again tells.
    """

    def write(session: ClientSession) -> bool:
        marks = {"deleting": True, "uncleared": True}
        change = {"$unset": {"listed": "", "open": ""}, "$set": marks, "$currentDate": {"deleting_at": True}}
        header = db.batches.find_one_and_update({"_id": batch_id, "listed": True}, change, {"stores": 1}, session=session)
        if header is None:
            return False
        images = {"batch_id": batch_id}
        fenced = {"status": "deleting", "work.owner": None, "work.claim": None, "work.lease_until": None}
        count = db.images.update_many(images, {"$set": fenced, "$inc": {"work.fence": 1}}, session=session).matched_count
        db.ledger.update_one({"_id": batch_id}, {"$set": {"state": "deleted"}, "$inc": {"deleted": count}}, session=session)
        page_index.forget(db, session, batch_id, header["stores"])
        return True

    try:
        with translate_errors(), pymongo.timeout(deadline_s), db.client.start_session() as session:
            found = session.with_transaction(write)
    except TooSlow as error:  # what the driver calls a transaction that outran its deadline
        raise StoreAway("The database does not answer; try again.", retry_after=2) from error
    if not found:
        raise NotFound("There is no such batch.")


def uncleared(db: Db, limit: int = 100) -> list[str]:
    """Name batches under deletion whose files nobody has said to be gone, by a majority's view: no failover brings them back (sweep)."""
    batches = db.get_collection("batches", read_concern=ReadConcern("majority"))
    with translate_errors():
        return [row["_id"] for row in batches.find({"deleting": True, "uncleared": True}, {"_id": 1}).limit(limit)]


def cleared(db: Db, batch_id: str) -> None:
    """Say that the files of a batch under deletion are gone, but for what a frozen worker may still write."""
    with translate_errors():
        db.batches.update_one({"_id": batch_id}, {"$unset": {"uncleared": ""}})


def deletable(db: Db, longest_lease_s: float, limit: int = 100) -> list[str]:
    """Name batches under deletion since longer than any worker may still be writing (sweep)."""
    old = {"deleting": True, "$expr": {"$lt": ["$deleting_at", {"$subtract": ["$$NOW", int(longest_lease_s * 1000)]}]}}
    with translate_errors():
        return [row["_id"] for row in db.batches.find(old, {"_id": 1}).limit(limit)]


def finish_delete(db: Db, batch_id: str) -> None:
    """Remove the documents of a batch whose files are gone; the ledger keeps its line."""
    with translate_errors():
        db.images.delete_many({"batch_id": batch_id, "status": "deleting"})
        db.batches.delete_one({"_id": batch_id, "deleting": True})
