"""Convert stored jobs to the form that the API returns."""

from typing import Any, Final

from shared.jobs import records
from shared.storage.mongo import Document

_STATUSES: Final = {"processing": "running"}
"""The shown statuses that differ from the stored ones."""


def job(document: Document) -> dict[str, Any]:
    """Return a stored job as the API shows it."""
    return {
        "id": document["_id"],
        "kind": document["kind"],
        "status": _STATUSES.get(document["status"], document["status"]),
        "total": document["total"],
        "done": document["done"],
        "changed": document["changed"],
        "errors": records.errors_of(document),
        "created_at": document["created_at"],
        "cancel_requested": document.get("cancel_requested", False),
        "finished_at": document["finished_at"],
        "undo_until": records.undo_until(document),
        "undone_by": document["undone_by"],
    }
