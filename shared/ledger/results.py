"""Stores the result of an image, once, and only from the worker that still holds the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne

from shared.ledger import claims
from shared.queue.leases import Lease
from shared.states import ImageState
from shared.storage.mongo import Db, Document, translate_errors


@dataclass(frozen=True, slots=True)
class Result:
    """The result of processing an image under the claim with the given fence.

    ``fields`` are the fields to store. If processing failed, ``error`` is a stable error code and a sentence.
    ``stored`` says that the original is stored durably under its own key, and that its bytes were verified.
    """

    image_id: str
    fence: int
    fields: dict[str, Any] | None = None
    error: tuple[str, str] | None = None
    stored: bool = False


def finish(db: Db, owner: str, results: Sequence[Result]) -> set[str]:
    """Store the results of images. Each image is updated in one atomic write, and only while its claim is still held.

    :returns: the ids of the images whose results are stored. The claims of all other images were lost, so the caller
        must write nothing more for them.
    """
    if not results:
        return set()
    with translate_errors():
        stored = db.images.bulk_write([_update(owner, result) for result in results], ordered=False)
        if stored.matched_count == len(results):
            return {result.image_id for result in results}
        fences = {result.image_id: result.fence for result in results}
        terminal = {"_id": {"$in": list(fences)}, "status": {"$in": ["done", "failed"]}, "work.finisher": owner}
        found = db.images.find(terminal, {"work.fence": 1})
        return {image["_id"] for image in found if image["work"]["fence"] == fences[image["_id"]]}


def _update(owner: str, result: Result) -> "UpdateOne":
    fields: Document = dict(result.fields or {})
    if result.error is None:
        fields |= {"status": ImageState.DONE.value, "error": None}
    else:
        code, detail = result.error
        fields |= {"status": ImageState.FAILED.value, "error": {"code": code, "detail": detail}}
    if result.stored:
        fields["work.stored"] = True
    fields |= claims.LEASES.unheld() | {"work.finisher": owner}
    return UpdateOne(
        claims.LEASES.guard(owner, Lease(result.image_id, result.fence)),
        {"$set": fields, "$currentDate": {"finished_at": True, "updated_at": True}},
    )
