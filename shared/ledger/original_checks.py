"""Chooses random images whose originals the sweep checks, and counts the checks."""

import random
from dataclasses import dataclass
from typing import Final

from pymongo.write_concern import WriteConcern

from shared.ledger.batch_images import VISIBLE
from shared.storage.mongo import Db, Document, translate_errors

_ID: Final = "originals"
_FIELDS: Final = ("batch_id", "file_size", "sha256", "work.ext")


@dataclass(frozen=True, slots=True)
class OriginalChecks:
    """The number of originals that were checked, and how often an original was missing or damaged."""

    checked: int
    damaged: int


def choose_image(db: Db) -> Document | None:
    """Choose a random image whose spool has been settled.

    The times of acceptance are equally likely, so an image of a quiet hour is chosen more often than one of a busy hour.
    The cost does not depend on the number of images: each of the five queries reads one entry of an index, or a few if
    images next to each other are being deleted.

    :returns: the document, with only the fields that the check needs. None if the chosen image cannot be checked,
        because its spool has not been settled or its bytes were already missing when it was processed.
    """
    listed = {"listed": True}
    with translate_errors():
        oldest = db.batches.find_one(listed, {"_id": 1}, sort=[("_id", 1)])
        newest = db.batches.find_one(listed, {"_id": 1}, sort=[("_id", -1)])
        if oldest is None or newest is None:
            return None
        milliseconds = random.randint(_milliseconds(oldest), _milliseconds(newest))
        later = listed | {"_id": {"$gte": f"{milliseconds:012x}"}}
        batch = db.batches.find_one(later, {"spooled": 1}, sort=[("_id", 1)])
        if batch is None or "spooled" in batch:
            return None
        return _choose_of_batch(db, batch["_id"])


def _choose_of_batch(db: Db, batch_id: str) -> Document | None:
    """Choose a random image of a batch, or None if its bytes were already missing when it was processed.

    Where images were rejected or deleted, the indexes have gaps. An image after a gap is chosen more often.
    """
    standing = {"batch_id": batch_id, "status": VISIBLE}
    last = db.images.find_one(standing, {"index": 1}, sort=[("index", -1)])
    if last is None:
        return None
    after = standing | {"index": {"$gte": random.randint(0, last["index"])}}
    image = db.images.find_one(after, dict.fromkeys((*_FIELDS, "error.code"), 1), sort=[("index", 1)])
    if image is None or (image.pop("error", None) or {}).get("code") == "bytes_missing":
        return None
    return image


def count(db: Db, *, checked: int, damaged: int) -> None:
    """Add to the number of checked originals, and to the number of those that were missing or damaged."""
    checks = db.get_collection("checks", write_concern=WriteConcern(w=1))
    with translate_errors():
        checks.update_one({"_id": _ID}, {"$inc": {"checked": checked, "damaged": damaged}}, upsert=True)


def read(db: Db) -> OriginalChecks:
    """Return the counts of all checks so far."""
    with translate_errors():
        found = db.checks.find_one({"_id": _ID}) or {}
    return OriginalChecks(found.get("checked", 0), found.get("damaged", 0))


def _milliseconds(batch: Document) -> int:
    """Return the time of acceptance, which is the first part of a batch id (a UUIDv7), in Unix milliseconds."""
    return int(batch["_id"][:12], 16)
