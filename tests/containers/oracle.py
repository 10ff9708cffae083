"""Verify the images of an upload load over HTTP only, as a client sees them."""

import hashlib
import re
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import httpx

from tests.faults.upload_load import AcceptedBatch

_BATCH_TIMEOUT_S: Final = 180.0
_LEDGER_TIMEOUT_S: Final = 60.0


def read_ledger(client: httpx.Client) -> dict[str, int]:
    """Return the ledger's metric by state, with counts that are not older than this call."""
    started = time.monotonic()
    while True:
        text = client.get("/metrics").raise_for_status().text
        age = re.search(r"^shelfsight_ledger_age_seconds (\S+)", text, re.MULTILINE)
        elapsed_s = time.monotonic() - started
        if age is not None and float(age[1]) < elapsed_s:
            return {state: int(float(count)) for state, count in re.findall(r'shelfsight_ledger_images\{state="(\w+)"\} (\S+)', text)}
        assert elapsed_s < _LEDGER_TIMEOUT_S, "the sweep does not update the ledger's metric"
        time.sleep(0.2)


def read_backlog(url: str) -> int:
    """Return the number of pending images, or a large number while the service does not respond, so that a load pauses."""
    try:
        match = re.search(r"^shelfsight_backlog_images (\S+)", httpx.get(f"{url}/metrics", timeout=5).text, re.MULTILINE)
    except httpx.HTTPError:
        match = None
    return int(float(match[1])) if match else 1_000_000


def wait_until_finished(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    """Wait until a batch is finished, and return it."""
    deadline = time.monotonic() + _BATCH_TIMEOUT_S
    while True:
        response = client.get(f"/image_batches/{batch_id}", params={"wait": 10})
        if response.status_code == 200 and response.json()["finished_at"] is not None:
            batch: dict[str, Any] = response.json()
            return batch
        assert time.monotonic() < deadline, f"{batch_id}: {response.status_code} {response.text[:200]}"
        time.sleep(0.2)


def find_problems(
    client: httpx.Client, batches: Sequence[AcceptedBatch], before: dict[str, int], *, other_images: int = 0, cancelled: Collection[str] = ()
) -> list[str]:
    """Return what is wrong. Each image of each accepted batch must exist once, be done, and have its files and an unchanged original.

    :param cancelled: the ids of the batches whose images may be cancelled instead.
    :param before: the ledger before the load.
    :param other_images: number of images that other uploads have added since.
    """
    problems = []
    for sent_batch in batches:
        batch = wait_until_finished(client, sent_batch.batch_id)
        if [document["sha256"] for document in batch["images"]] != [image.sha256 for image in sent_batch.images]:
            problems.append(f"{sent_batch.batch_id}: the images differ from those sent")
        for document, image in zip(batch["images"], sent_batch.images, strict=False):
            original = client.get(f"/uploads/{document['id']}.{image.extension}")
            is_cancelled = document["status"] == "cancelled" and sent_batch.batch_id in cancelled
            if document["status"] != "done" and not is_cancelled:
                problems.append(f"{document['id']}: {document['status']} {document['error']}")
            elif original.status_code != 200 or hashlib.sha256(original.content).hexdigest() != image.sha256:
                problems.append(f"{document['id']}: the original is wrong: {original.status_code}")
            for name in [] if is_cancelled else ["thumb", "boxes", *(made["name"] for made in document["augmentations"])]:
                status = client.get(f"/uploads/{document['id']}/{name}.jpg").status_code
                if status != 200:
                    problems.append(f"{document['id']}: {name} is wrong: {status}")
    after = read_ledger(client)
    accepted = sum(len(sent_batch.images) for sent_batch in batches) + other_images
    if after["received"] - before["received"] != accepted:
        problems.append(f"{accepted} images were accepted, but the ledger counts {after['received'] - before['received']}")
    if after["received"] != after["done"] + after["failed"] + after["cancelled"] + after["pending"] + after["deleted"]:
        problems.append(f"the ledger does not balance: {after}")
    return problems
