"""Stores the result of an image, once, and only from the worker that still holds the image."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pymongo import UpdateOne

from shared.barcode_checks import check
from shared.ledger import claims, timelines
from shared.ledger.shown_results import make_shown
from shared.ledger.timelines import Measured
from shared.queue.leases import Lease
from shared.states import ImageState
from shared.storage.mongo import Db, Document, translate_errors

_ROUNDS: Final = 4
_OPTIONAL: Final = frozenset({"top_score"})
"""The fields that some results have and others have not."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of processing an image under the claim with the given fence.

    ``fields`` are the fields to store. If processing failed, ``error`` is a stable error code and a sentence.
    ``stored`` says that the original is stored durably under its own key, and that its bytes were verified. ``barcode`` is
    the declared barcode with which the ``barcode_check`` among the fields was made. ``is_again`` says that the image had a
    successful result when it was claimed. It keeps this result if it cannot be processed again; then ``fields`` are
    ``shown_results.options_of`` the image.
    ``measured`` is for the timeline of the image.
    """

    image_id: str
    fence: int
    fields: dict[str, Any] | None = None
    error: tuple[str, str] | None = None
    stored: bool = False
    barcode: str | None = None
    is_again: bool = False
    measured: Measured = field(default_factory=Measured)


def finish(db: Db, owner: str, results: Sequence[Result]) -> set[str]:
    """Store the results of images. Each image is updated in one atomic write, and only while its claim is still held.

    :returns: the ids of the images whose results are stored. The claims of all other images were lost, so the caller
        must write nothing more for them.
    """
    finished: set[str] = set()
    left = list(results)
    with translate_errors():
        for _ in range(_ROUNDS):
            if not left:
                break
            stored = _write(db, owner, left)
            finished |= stored
            left = _check_again(db, owner, [result for result in left if result.image_id not in stored])
    return finished


def _write(db: Db, owner: str, results: Sequence[Result]) -> set[str]:
    stored = db.images.bulk_write([_update(owner, result) for result in results], ordered=False)
    if stored.matched_count == len(results):
        return {result.image_id for result in results}
    fences = {result.image_id: result.fence for result in results}
    terminal = {"_id": {"$in": list(fences)}, "status": {"$in": ["done", "failed"]}, "work.finisher": owner}
    found = db.images.find(terminal, {"work.fence": 1})
    return {image["_id"] for image in found if image["work"]["fence"] == fences[image["_id"]]}


def _check_again(db: Db, owner: str, results: Sequence[Result]) -> list[Result]:
    """Return those of the results whose images are still held, so their barcodes were corrected during the processing.

    Their ``barcode_check`` is made with the corrected barcode.
    """
    if not results:
        return []
    held = claims.LEASES.guard_many(owner, [Lease(result.image_id, result.fence) for result in results])
    declared = {image["_id"]: image["barcode"] for image in db.images.find(held, {"barcode": 1})}
    return [
        replace(result, barcode=barcode, fields=result.fields | {"barcode_check": check(barcode, result.fields["barcodes"])})
        for result in results
        if result.fields is not None and _has_check(result) and (barcode := declared.get(result.image_id, result.barcode)) != result.barcode
    ]


def _has_check(result: Result) -> bool:
    return result.fields is not None and "barcode_check" in result.fields


def _update(owner: str, result: Result) -> "UpdateOne":
    update = timelines.record_attempt(owner, result.fence, result.error, result.measured)
    fields: Document = update.setdefault("$set", {})
    fields |= claims.LEASES.unheld() | {"work.finisher": owner}
    if result.stored:
        fields["work.stored"] = True
    update["$currentDate"] = {"updated_at": True}
    fields |= result.fields or {}
    if result.error is None or not result.is_again:
        update["$currentDate"]["finished_at"] = True
    if result.error is None:
        fields |= {"status": ImageState.DONE.value, "error": None, "shown": make_shown(result.fence)}
        if result.is_again:
            update["$unset"] = dict.fromkeys(_OPTIONAL - fields.keys(), "")
    elif result.is_again:
        fields["status"] = ImageState.DONE.value
    else:
        code, detail = result.error
        fields |= {"status": ImageState.FAILED.value, "error": {"code": code, "detail": detail}}
    guard = claims.LEASES.guard(owner, Lease(result.image_id, result.fence))
    return UpdateOne(guard | {"barcode": result.barcode} if _has_check(result) else guard, update)
