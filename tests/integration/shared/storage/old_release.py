"""Data of the release before, and what code of that release does to a database.

``tests/fixtures/README.md`` says how the data was made.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from bson import json_util
from pymongo.client_session import ClientSession

from shared.ids import image_id, new_batch_id
from shared.ledger import (
    claims,
    closing,
    page_index,
)
from shared.storage.mongo import Db
from shared.storage.schema.superseded import SUPERSEDED
from tests.support.ledger import (
    batch_id_at,
    process_all,
)
from tests.support.paths import ROOT

RELEASE: Final[dict[str, Any]] = json_util.loads(
    (ROOT / "tests/fixtures/release_b91e182.json").read_text(), json_options=json_util.JSONOptions(tz_aware=False)
)
_COPIES: Final = 600
"""Copies of the batch of four done images, so that the migration takes several steps."""


def insert_copies(db: Db, newest: datetime) -> None:
    """Insert copies of a batch as batches that were accepted in each second up to ``newest``."""
    batch = db.batches.find_one({"status": "done", "listed": True})
    assert batch is not None
    line = db.ledger.find_one({"_id": batch["_id"]})
    images = list(db.images.find({"batch_id": batch["_id"]}).sort("index", 1))
    assert line is not None
    copies: dict[str, list[dict[str, Any]]] = {"batches": [], "ledger": [], "images": []}
    for number in range(_COPIES):
        batch_id = batch_id_at(newest - timedelta(seconds=number), number)
        copies["batches"].append(batch | {"_id": batch_id})
        copies["ledger"].append(line | {"_id": batch_id})
        copies["images"] += [image | {"_id": image_id(batch_id, image["index"]), "batch_id": batch_id} for image in images]
    for name, documents in copies.items():
        db[name].insert_many(documents)


def insert_as_old_code(db: Db) -> None:
    """Insert copies of a queued batch of the release before, whose documents have what that release wrote."""
    header = next(batch for batch in RELEASE["batches"]["documents"] if batch["status"] == "queued")
    line = next(line for line in RELEASE["ledger"]["documents"] if line["_id"] == header["_id"])
    images = [image for image in RELEASE["images"]["documents"] if image["batch_id"] == header["_id"]]
    batch_id = new_batch_id()
    db.ledger.insert_one(line | {"_id": batch_id})
    db.batches.insert_one(header | {"_id": batch_id})
    db.images.insert_many([image | {"_id": image_id(batch_id, image["index"]), "batch_id": batch_id} for image in images])


def delete_as_old_code(db: Db, batch_id: str) -> None:
    """Begin a deletion as the release before did, which knows neither groups of segments nor segments of the ledger."""

    def write(session: ClientSession) -> None:
        flags = {"deleting": True, "uncleared": True}
        change = {"$unset": {"listed": "", "open": ""}, "$set": flags, "$currentDate": {"deleting_at": True}}
        header = db.batches.find_one_and_update({"_id": batch_id, "listed": True}, change, {"stores": 1}, session=session)
        assert header is not None
        fenced = {"status": "deleting", "work.claim": None, "work.lease_until": None}
        count = db.images.update_many({"batch_id": batch_id}, {"$set": fenced, "$inc": {"work.fence": 1}}, session=session).matched_count
        db.ledger.update_one({"_id": batch_id}, {"$set": {"state": "deleted"}, "$inc": {"deleted": count}}, session=session)
        for scope in [page_index.ALL, *(page_index.scope_of(store) for store in header["stores"])]:
            segment = {"scope": scope, "newest": {"$gte": batch_id}, "after": {"$lt": batch_id}}
            db.ranks.update_one(segment, {"$inc": {"count": -1}}, session=session)

    with db.client.start_session() as session:
        session.with_transaction(write)


def finish_as_old_code(db: Db, batch_id: str) -> None:
    """Finish the images of a batch as a worker of the release before, which does not write the field ``top_score``."""
    process_all(db, "old worker")
    result = {"detections": [{"label": "milk", "score": 0.75, "box": [0, 0, 1, 1]}]}
    changed = db.images.update_many({"batch_id": batch_id, "status": "done"}, {"$set": result, "$unset": {"top_score": ""}})
    assert changed.matched_count == changed.modified_count == 2


def finish_again_as_old_code(db: Db, batch_id: str, *, fail: bool = False) -> None:
    """Finish the images of a batch as a worker of the version before, which writes neither ``shown`` nor ``history``."""
    claim = claims.claim(db, "old worker", 32, 60)
    assert {image["batch_id"] for image in claim.images} == {batch_id}
    result: dict[str, Any] = {"status": "done", "error": None, "detections": []}
    if fail:
        result = {"status": "failed", "error": {"code": "corrupt", "detail": "x"}}
    result |= claims.LEASES.unheld() | {"work.finisher": "old worker"}
    finished = {"$set": result, "$currentDate": {"finished_at": True, "updated_at": True}}
    assert db.images.update_many({"batch_id": batch_id, "work.owner": "old worker"}, finished).modified_count == len(claim.images)
    closing.close_batches(db, [batch_id])


def return_to_old_code(db: Db) -> None:
    """Create the indexes that the release before creates when somebody returns to it."""
    for name in ("images", "batches", "turns"):
        for index in RELEASE[name]["indexes"]:
            if index["name"] in {*SUPERSEDED.get(name, {}), "pending_1_served_at_1"}:
                db.command("createIndexes", name, indexes=[{key: value for key, value in index.items() if key != "v"}])
