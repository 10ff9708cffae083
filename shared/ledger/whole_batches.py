"""The rule for changes of a whole batch: they need the right to all stores of its images."""

from collections.abc import Collection

from pymongo.client_session import ClientSession

from shared.allowed_stores import AllowedStores, within_query
from shared.errors import Forbidden, NotFound
from shared.storage.mongo import Db, Document


def query(batch_id: str, stores: AllowedStores) -> Document:
    """Return the query for a batch that somebody with rights in ``stores`` may change as a whole."""
    return {"_id": batch_id, "listed": True} | within_query(stores)


def query_many(batch_ids: Collection[str], stores: AllowedStores) -> Document:
    """Return the query for those of the batches that somebody with rights in ``stores`` may change as a whole."""
    return {"_id": {"$in": list(batch_ids)}, "listed": True} | within_query(stores)


def find_foreign(db: Db, batch_ids: Collection[str], stores: AllowedStores) -> set[str]:
    """Return the ids of those of the batches that have images of other stores than ``stores``. Errors of the driver pass."""
    if stores is None or not batch_ids:
        return set()
    listed = {row["_id"] for row in db.batches.find(query_many(batch_ids, None), {"_id": 1})}
    return listed.difference(row["_id"] for row in db.batches.find(query_many(batch_ids, stores), {"_id": 1}))


def refusal(db: Db, batch_id: str, session: ClientSession | None = None) -> NotFound | Forbidden:
    """Return the error for a request to change a batch that ``query`` has not found."""
    if db.batches.find_one({"_id": batch_id, "listed": True}, {"_id": 1}, session=session) is None:
        return NotFound("There is no such batch.")
    return Forbidden(
        "The batch has images of stores that these credentials do not include; ask somebody with access to all its stores.",
        code="foreign_store",
    )
