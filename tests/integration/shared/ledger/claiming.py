"""Helpers for the tests of claims."""

from datetime import datetime

from shared.storage.mongo import Db


def read_image(db: Db, image_id: str) -> dict[str, object]:
    found = db.images.find_one({"_id": image_id})
    assert found is not None
    return found


def set_not_before(db: Db, moment: datetime) -> None:
    """Let no image be claimed before a moment."""
    db.images.update_many({}, {"$set": {"work.not_before": moment}})
