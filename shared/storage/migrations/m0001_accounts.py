"""Adds ``account`` and ``created_by`` to batches and images. Both are null, because the version before had no accounts."""

from typing import Final

from shared.storage.migrations.run import Run
from shared.storage.mongo import translate_errors

SUMMARY: Final = "batches and images get the fields account and created_by"


def apply(run: Run) -> None:
    """Add the fields to all documents without them."""
    for collection in ("batches", "images"):
        for ids in run.id_ranges(collection):
            with translate_errors():
                run.db[collection].update_many({"_id": ids, "account": {"$exists": False}}, {"$set": {"account": None, "created_by": None}})
