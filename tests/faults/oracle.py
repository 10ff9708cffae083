"""Says whether anything was lost or doubled. It asks over HTTP what a user can ask, and MongoDB's own log for the rest."""

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from shared.ledger import audit
from shared.storage.mongo import Db
from tests.faults.images import SIZE, UploadImage
from tests.faults.services import FaultStack
from tests.faults.upload_load import AcceptedBatch, UploadLoad, request_with_retries

TERMINAL_WITHIN_S: Final = 120.0
_VARIANTS: Final = ("thumb", "boxes", "horizontal_flip")


@dataclass
class Verdict:
    """What the oracle saw. ``problems`` is empty when every promise was kept; the rest are figures for the table."""

    batches: int = 0
    images: int = 0
    done: int = 0
    poison: int = 0
    lost: int = 0
    doubled: int = 0
    innocents_failed: int = 0
    files_wrong: int = 0
    files_read: int = 0
    settled_after_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def wait_until_terminal(stack: FaultStack, load: UploadLoad, last_fault: float) -> float:
    """Wait until every upload was answered and every batch is closed.

    :param last_fault: moment of the last fault, by ``time.monotonic``.
    :returns: seconds from then on.
    :raises AssertionError: that took more than 120 s.
    """
    until = last_fault + TERMINAL_WITHIN_S
    answered = load.finish(until - time.monotonic())
    still: Any = "the uploads"
    while time.monotonic() < until:
        try:
            still = stack.db.batches.count_documents({"open": True})
        except Exception as error:  # noqa: BLE001 -- MongoDB may still be coming back
            still = error
        if still == 0 and answered:
            return time.monotonic() - last_fault
        time.sleep(0.2)
    stuck = list(stack.db.images.find({"status": {"$in": ["queued", "processing"]}}, {"status": 1, "work": 1}).limit(3))
    raise AssertionError(
        f"not all terminal {TERMINAL_WITHIN_S:.0f} s after the last fault: open {still}, answered {answered}, {stuck}"
    )


def verify(stack: FaultStack, load: UploadLoad) -> Verdict:
    """Compare all that was sent with all that is there."""
    verdict = Verdict(batches=len(load.sent), images=sum(len(sent.pictures) for sent in load.sent))
    if load.refused:
        verdict.problems.append(f"answers that must not be: {Counter(load.refused).most_common(5)}")
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        for sent in load.sent:
            _verify_batch(client, sent, verdict)
    _verify_database(stack.db, load.sent, verdict)
    return verdict


def _verify_batch(client: httpx.Client, sent: AcceptedBatch, verdict: Verdict) -> None:
    answer = request_with_retries(client, "GET", f"/image_batches/{sent.batch_id}")
    images = answer.json().get("images", [])
    if answer.status_code != 200 or len(images) != len(sent.pictures):
        verdict.lost += len(sent.pictures) - len(images)
        verdict.problems.append(f"{sent.batch_id}: {answer.status_code}, {len(images)} of {len(sent.pictures)} images")
        return
    for picture, image in zip(sent.pictures, images, strict=True):
        wrong = _verify_image(client, picture, image, verdict)
        if wrong:
            verdict.problems.append(f"{image['id']}: {wrong}")


def _verify_image(client: httpx.Client, picture: UploadImage, image: dict[str, Any], verdict: Verdict) -> str:
    if image["sha256"] != picture.sha256:
        return "another picture's digest"
    status, error = image["status"], image["error"]
    wrong = _verify_file(client, f"/uploads/{image['id']}.{picture.ending}", picture.sha256, verdict)
    if picture.harm is not None:
        verdict.poison += 1
        as_planted = status == "failed" and error["code"] == picture.harm
        return wrong if as_planted else f"the poison ended {status} {error} instead of failed / {picture.harm}"
    if status not in {"done", "failed"}:
        verdict.lost += 1
        return f"ended {status}"
    if status == "failed":
        verdict.innocents_failed += 1
        return f"an innocent failed: {error}"
    verdict.done += 1
    if (image["width"], image["height"]) != SIZE or image["model"] is None or not image["finished_at"] or error:
        return f"done without its result: {image}"
    for name in _VARIANTS:
        wrong = wrong or _verify_file(client, f"/uploads/{image['id']}/{name}.jpg", None, verdict)
    return wrong


def _verify_file(client: httpx.Client, path: str, sha256: str | None, verdict: Verdict) -> str:
    """Read a file: the original by its digest, what was made of it by its first and last bytes."""
    verdict.files_read += 1
    try:
        answer = request_with_retries(client, "GET", path)
    except httpx.HTTPError as error:  # a file shorter than its document says ends the connection
        verdict.files_wrong += 1
        return f"{path}: {error}"
    data = answer.content
    whole = (
        hashlib.sha256(data).hexdigest() == sha256
        if sha256
        else data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9"
    )
    if answer.status_code == 200 and whole:
        return ""
    verdict.files_wrong += 1
    return f"{path}: {answer.status_code}, {len(data)} bytes, not the right ones"


def _verify_database(db: Db, sent: list[AcceptedBatch], verdict: Verdict) -> None:
    """Look for what nobody sent, for results that landed twice, and at the balance."""
    ids = {one.batch_id for one in sent}
    strangers = [row["_id"] for row in db.batches.find({}, {"_id": 1}) if row["_id"] not in ids]
    verdict.doubled += len(strangers) + len(sent) - len(ids)
    if verdict.doubled:
        verdict.problems.append(f"batches that no answer named, or that two answers named: {strangers[:5]}")
    names = {row["_id"] for row in db.images.find({}, {"_id": 1})}
    landed = _count_final_writes(db)
    twice = [name for name, number in landed.items() if number > 1]
    never = [name for name in names if not landed[name]]
    if twice or never:
        verdict.doubled += len(twice)
        verdict.problems.append(f"results that landed twice: {twice[:5]}; never: {never[:5]}")
    balance = audit.balance(db)
    if balance["received"] != verdict.images or balance["done"] + balance["failed"] != verdict.images:
        verdict.problems.append(f"the ledger does not balance with {verdict.images} sent: {balance}")


def _count_final_writes(db: Db) -> Counter[str]:
    """Count for each image, by the replica set's operation log, how often a final state was written to it."""
    final = ["done", "failed"]
    query = {"ns": f"{db.name}.images", "op": "u", "o.diff.u.status": {"$in": final}}
    return Counter(str(entry["o2"]["_id"]) for entry in db.client["local"]["oplog.rs"].find(query, {"o2": 1}))
