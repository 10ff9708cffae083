"""Compare what the service has stored with the local files: the receipts of the batches with the digests of the files.

What was uploaded is read from the resume file, one group after the other, so this needs little memory for any number of images.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from scripts.client import local_files
from scripts.client.groups import Image
from scripts.client.journal import AnsweredGroup
from scripts.client.send_group import Sender

Problem = dict[str, str]
"""What is not right about an image or a batch: ``path`` of the file (empty for a whole batch), ``batch_id``, ``code`` and ``detail``."""
_ENDED: Final = {"failed": "The image could not be processed.", "cancelled": "The image was cancelled before it was processed."}
_UNKNOWN: Final = "An earlier run sent this image, and its response was lost, so its batch is not known here; it is not compared."


def verify(sender: Sender, groups: Iterator[AnsweredGroup], on_group: Callable[[int, int, list[Problem]], None]) -> None:
    """Verify all groups that the service has accepted.

    :param on_group: called for each group with the number of images that are right, the number of all its images, and what is
        not right.
    :raises GaveUp: when the service does not respond, or refuses the API key.
    """
    for group in groups:
        problems = _verify_group(sender, group)
        wrong = {problem["path"] for problem in problems if problem["path"]}
        has_proof = not any(not problem["path"] for problem in problems)
        right = sum(str(image.path) not in wrong for _, image in group.accepted) if has_proof else 0
        on_group(right, len(group.accepted), problems)


def _verify_group(sender: Sender, group: AnsweredGroup) -> list[Problem]:
    batch_id = group.batch_id or ""
    if not batch_id:
        return [_problem(image, batch_id, "unknown_batch", _UNKNOWN) for _, image in group.accepted]
    receipt = sender.fetch_receipt(batch_id)
    if receipt is None:
        detail = "The service has no such batch. It was deleted, or the API key does not include its stores."
        return [_problem(image, batch_id, "missing", detail) for _, image in group.accepted]
    problems = _check_receipt(sender, batch_id, receipt)
    stored = {image["index"]: image for image in receipt["images"]}
    for index, image in group.accepted:
        code, detail = _compare(image, stored.get(index))
        if code:
            problems.append(_problem(image, batch_id, code, detail))
    return problems


def _check_receipt(sender: Sender, batch_id: str, receipt: dict[str, Any]) -> list[Problem]:
    """Return what is wrong with the receipt itself."""
    problems: list[Problem] = []
    if receipt["batch_id"] != batch_id or not sender.verify_receipt(receipt):
        detail = "The receipt is of another batch, or its signature is invalid, so it proves nothing."
        problems.append({"path": "", "batch_id": batch_id, "code": "bad_signature", "detail": detail})
    balance, states = receipt["balance"], Counter(image["status"] for image in receipt["images"])
    pending = states["queued"] + states["processing"]
    expected = {"done": states["done"], "failed": states["failed"], "cancelled": states["cancelled"], "pending": pending}
    received, deleted, standing = balance["received"], balance["deleted"], len(receipt["images"])
    if received - deleted != standing or any(balance[name] != number for name, number in expected.items()):
        detail = f"The balance does not add up: {received} received, {deleted} deleted, {standing} in the receipt. Documents were removed or added by hand."
        problems.append({"path": "", "batch_id": batch_id, "code": "unbalanced", "detail": detail})
    return problems


def _compare(image: Image, stored: dict[str, Any] | None) -> tuple[str, str]:
    """Return the code and the sentence of what is not right about an image; two empty texts if all is right."""
    if stored is None:
        return "missing", "The service does not have the image any more, or the API key does not include its store."
    differs = _compare_file(image, stored["sha256"])
    if differs is not None:
        return differs
    if stored["status"] in _ENDED:
        return stored["status"], _ENDED[stored["status"]]
    return ("", "") if stored["status"] == "done" else ("unfinished", "The image has no result yet.")


def _compare_file(image: Image, sha256: str) -> tuple[str, str] | None:
    try:
        identity, digest = local_files.digest(image.path)
    except FileNotFoundError:
        return "file_missing", "The local file does not exist any more, so it cannot be compared."
    except OSError as error:
        return "file_unreadable", f"The local file cannot be read: {error.strerror or error}"
    if digest == sha256:
        return None
    if (identity.size, identity.mtime_ns) != (image.size, image.mtime_ns):
        return "file_changed", "The local file was changed after it was uploaded."
    return "different", "The service has stored other bytes than those of the local file."


def _problem(image: Image, batch_id: str, code: str, detail: str) -> Problem:
    return {"path": str(image.path), "batch_id": batch_id, "code": code, "detail": detail}
