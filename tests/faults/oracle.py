"""The oracle: verify that no accepted image was lost or processed twice, over HTTP and from MongoDB's operation log."""

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from shared.ids import image_id
from shared.ledger import audit, sums
from shared.ledger.batch_images import VISIBLE
from shared.states import ImageState, batch_state
from shared.storage.blob_keys import image_prefix
from tests.faults import stored_results
from tests.faults.change_load import Changeable
from tests.faults.images import SIZE
from tests.faults.services import HARD_LIMIT_S, LEASE_S, FaultStack
from tests.faults.upload_load import AUGMENTATIONS, AcceptedBatch, UploadLoad, request_with_retries

TERMINAL_WITHIN_S: Final = 120.0
_DELETED_WITHIN_S: Final = 120.0 + HARD_LIMIT_S + LEASE_S
"""The files of deleted images are deleted once more when no worker can write them any more, and then the documents."""
_VARIANTS: Final = ("thumb", "boxes")


@dataclass
class Verdict:
    """The result of the oracle. ``problems`` is empty when every promise was kept; the other fields are figures for the table."""

    batches: int = 0
    images: int = 0
    done: int = 0
    cancelled: int = 0
    queued_again: int = 0
    read_meanwhile: int = 0
    harmful: int = 0
    lost: int = 0
    doubled: int = 0
    valid_failed: int = 0
    files_wrong: int = 0
    files_read: int = 0
    settled_after_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def wait_until_terminal(stack: FaultStack, load: UploadLoad, last_fault: float) -> float:
    """Wait until every upload was accepted and every batch is closed.

    :param last_fault: time of the last fault, by ``time.monotonic``.
    :returns: seconds since the last fault.
    :raises AssertionError: when that takes more than 120 s.
    """
    deadline = last_fault + TERMINAL_WITHIN_S
    uploads_finished = load.finish(deadline - time.monotonic())
    open_batches: Any = "not counted"
    while time.monotonic() < deadline:
        try:
            open_batches = stack.db.batches.count_documents({"open": True})
        except Exception as error:  # noqa: BLE001 -- MongoDB may still be restarting
            open_batches = error
        if open_batches == 0 and uploads_finished:
            return time.monotonic() - last_fault
        time.sleep(0.2)
    stuck = list(stack.db.images.find({"status": {"$in": ["queued", "processing"]}}, {"status": 1, "work": 1}).limit(3))
    raise AssertionError(
        f"not all images are terminal {TERMINAL_WITHIN_S:.0f} s after the last fault: "
        f"open batches {open_batches}, uploads finished {uploads_finished}, {stuck}"
    )


def verify(stack: FaultStack, load: UploadLoad, *, cleaned: bool = False) -> Verdict:
    """Compare all accepted batches with the service's responses, its files and its database, after all deletions have ended.

    :param cleaned: also wait until the sweep has cleaned up, and check each file of the blob store.
    """
    verdict = Verdict(batches=len(load.accepted), images=sum(len(batch.images) for batch in load.accepted))
    rejections = load.rejections + load.changes.rejections
    if rejections:
        verdict.problems.append(f"responses that must not occur: {Counter(rejections).most_common(5)}")
    _wait_until_deleted(stack, verdict)
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        for batch in load.accepted:
            _verify_batch(client, batch, load, verdict)
    _verify_database(stack, load, verdict)
    for batch in load.accepted:
        _verify_header(stack, batch, load, verdict)
    _verify_deleted_files(stack, load, verdict)
    if cleaned:
        left = stored_results.wait_until_cleaned(stack)
        wrong = [left] if left else list(stored_results.find_wrong_files(stack, [batch.batch_id for batch in load.accepted]))
        verdict.files_wrong += len(wrong)
        verdict.problems += wrong
    for reader in load.readers:
        verdict.read_meanwhile += reader.read
        verdict.problems += reader.problems
    return verdict


def _wait_until_deleted(stack: FaultStack, verdict: Verdict) -> None:
    deadline = time.monotonic() + _DELETED_WITHIN_S
    while left := stack.db.images.count_documents({"status": "deleting"}) + stack.db.batches.count_documents({"deleting": True}):
        if time.monotonic() > deadline:
            verdict.problems.append(f"{left} deleted documents are left after {_DELETED_WITHIN_S:.0f} s")
            return
        time.sleep(0.5)


def _verify_batch(client: httpx.Client, batch: AcceptedBatch, load: UploadLoad, verdict: Verdict) -> None:
    standing = load.changes.standing(Changeable(batch.batch_id, len(batch.images)))
    response = request_with_retries(client, "GET", f"/image_batches/{batch.batch_id}")
    documents = response.json().get("images", [])
    if response.status_code != (200 if standing else 404) or len(documents) != len(standing):
        verdict.lost += len(standing) - len(documents)
        verdict.problems.append(f"{batch.batch_id}: {response.status_code}, {len(documents)} of {len(standing)} images")
        return
    for index, document in zip(standing, documents, strict=True):
        name = image_id(batch.batch_id, index)
        problem = _verify_image(client, batch, index, document, load, verdict)
        if (document["id"], document["store_name"]) != (name, load.changes.moved.get(name, batch.store)):
            problem = problem or f"another image, or another store: {document['id']}, {document['store_name']}"
        if problem:
            verdict.problems.append(f"{name}: {problem}")


def _verify_image(
    client: httpx.Client, batch: AcceptedBatch, index: int, document: dict[str, Any], load: UploadLoad, verdict: Verdict
) -> str:
    """Return what is wrong with one image, or an empty string."""
    image = batch.images[index]
    if document["sha256"] != image.sha256:
        return "the digest of another image"
    status, error = document["status"], document["error"]
    problem = _verify_file(client, f"/uploads/{document['id']}.{image.extension}", image.sha256, verdict)
    if image.expected_code is not None:
        verdict.harmful += 1
        failed_as_expected = status == "failed" and error["code"] == image.expected_code
        return problem if failed_as_expected else f"a harmful image ended {status} {error} instead of failed / {image.expected_code}"
    if status == "cancelled" and load.changes.is_cancelled(batch.batch_id):
        verdict.cancelled += 1
        return problem or _verify_no_file(client, f"/uploads/{document['id']}/thumb.jpg")
    if status not in {"done", "failed"}:
        verdict.lost += 1
        return f"ended {status}"
    if status == "failed":
        verdict.valid_failed += 1
        return f"a valid image failed: {error}"
    return _verify_done(client, batch, document, load, verdict) or problem


def _verify_done(client: httpx.Client, batch: AcceptedBatch, document: dict[str, Any], load: UploadLoad, verdict: Verdict) -> str:
    verdict.done += 1
    if (document["width"], document["height"]) != SIZE or document["model"] is None or not document["finished_at"] or document["error"]:
        return f"done without its result: {document}"
    made = [made["name"] for made in document["augmentations"]]
    requested = [operation.body.get("augmentations") for operation in load.changes.operations_on(batch.batch_id)]
    if sorted(made) not in [sorted(names) for names in (AUGMENTATIONS, *requested) if names is not None]:
        return f"it has augmentations that nobody has requested: {made}"
    problem = ""
    for name in (*_VARIANTS, *made):
        problem = problem or _verify_file(client, f"/uploads/{document['id']}/{name}.jpg", None, verdict)
    return problem


def _verify_no_file(client: httpx.Client, path: str) -> str:
    response = request_with_retries(client, "GET", path)
    is_refused = response.status_code == 404 and response.json()["code"] == "image_cancelled"
    return "" if is_refused else f"{path}: {response.status_code}, although the image was cancelled"


def _verify_file(client: httpx.Client, path: str, sha256: str | None, verdict: Verdict) -> str:
    """Read a file and return what is wrong with it, or an empty string.

    An original is checked by its digest, a variant (``sha256`` is None) by its first and last bytes.
    """
    verdict.files_read += 1
    try:
        response = request_with_retries(client, "GET", path)
    except httpx.HTTPError as error:  # a file that is shorter than its document states ends the connection
        verdict.files_wrong += 1
        return f"{path}: {error}"
    data = response.content
    is_intact = (
        hashlib.sha256(data).hexdigest() == sha256
        if sha256
        else data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9"
    )
    if response.status_code == 200 and is_intact:
        return ""
    verdict.files_wrong += 1
    return f"{path}: {response.status_code}, {len(data)} bytes, not the expected content"


def _verify_header(stack: FaultStack, batch: AcceptedBatch, load: UploadLoad, verdict: Verdict) -> None:
    """Compare what the documents of a batch and of its ledger say about its images with the images that stand."""
    standing = load.changes.standing(Changeable(batch.batch_id, len(batch.images)))
    line = stack.db.ledger.find_one({"_id": batch.batch_id}) or {}
    if (line.get("received"), line.get("deleted")) != (len(batch.images), len(batch.images) - len(standing)):
        verdict.problems.append(f"{batch.batch_id}: {len(standing)} of {len(batch.images)} images stand, but the ledger has {line}")
    header = stack.db.batches.find_one({"_id": batch.batch_id}) or {}
    images = list(stack.db.images.find({"batch_id": batch.batch_id, "status": VISIBLE}, {"status": 1, "store_name": 1, "file_size": 1}))
    if not header and not images:
        return
    states = Counter(image["status"] for image in images)
    counts = {state.value: states[state] for state in ImageState}
    expected = {
        "total": len(images),
        "bytes": sum(image["file_size"] for image in images),
        "counts": counts,
        "status": batch_state(counts, len(images)),
        "stores": sorted({image["store_name"] for image in images}),
    }
    wrong = {name: header.get(name) for name, value in expected.items() if header.get(name) != value}
    if wrong:
        verdict.problems.append(f"{batch.batch_id}: the document of the batch has {wrong} instead of {expected}")


def _verify_deleted_files(stack: FaultStack, load: UploadLoad, verdict: Verdict) -> None:
    """Check that no file of a deleted image is left."""
    for name in sorted(load.changes.deleted):
        folder = stack.blobs_root / image_prefix(name)
        left = [path for path in (*folder.parent.glob(f"{folder.name}*"), *folder.rglob("*")) if path.exists()]
        if left:
            verdict.problems.append(f"{name}: it was deleted, but has files: {left[:3]}")


def _verify_database(stack: FaultStack, load: UploadLoad, verdict: Verdict) -> None:
    """Check for batches that no response named, for results that were written twice, and the balance of the ledger."""
    db, batches, deleted = stack.db, load.accepted, len(load.changes.deleted)
    ids = {batch.batch_id for batch in batches}
    unknown = [row["_id"] for row in db.batches.find({}, {"_id": 1}) if row["_id"] not in ids]
    verdict.doubled += len(unknown) + len(batches) - len(ids)
    if verdict.doubled:
        verdict.problems.append(f"batches that no response named, or that two responses named: {unknown[:5]}")
    image_ids = {row["_id"] for row in db.images.find({}, {"_id": 1})}
    attempts = stored_results.read_attempts(stack)
    twice, never = sorted(attempts.doubled | attempts.early), sorted(image_ids - attempts.ended)
    verdict.queued_again = attempts.queued_again
    if twice or never:
        verdict.doubled += len(twice)
        verdict.problems.append(f"results that were written twice: {twice[:5]}; never: {never[:5]}")
    balance = audit.balance(db)
    finished = balance["done"] + balance["failed"] + balance["cancelled"]
    if (balance["received"], balance["deleted"], finished) != (verdict.images, deleted, verdict.images - deleted) or sums.count_missing(balance):
        verdict.problems.append(f"the ledger does not balance with {verdict.images} accepted and {deleted} deleted images: {balance}")
