"""Chooses random images whose originals the sweep checks, and counts the checks."""

import random
from dataclasses import dataclass
from typing import Final

from pymongo.write_concern import WriteConcern

from shared.ids import image_id
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
    The cost does not depend on the number of images: each of the four queries reads one entry of an index.

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
        batch = db.batches.find_one(later, {"total": 1, "spooled": 1}, sort=[("_id", 1)])
        if batch is None or "spooled" in batch:
            return None
        chosen = {"_id": image_id(batch["_id"], random.randrange(batch["total"])), "error.code": {"$ne": "bytes_missing"}}
        return db.images.find_one(chosen, dict.fromkeys(_FIELDS, 1))


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
