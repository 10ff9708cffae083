"""What became of the pictures of a load, as a client sees it: nothing but HTTP."""

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx

from tests.faults.upload_load import AcceptedBatch

_BATCH_TIMEOUT_S: Final = 180.0
_LEDGER_AGE_S: Final = 6.0
"""A web process counts the ledger anew after five."""


def read_ledger(client: httpx.Client) -> dict[str, int]:
    """Read the ledger's metric, no older than this call."""
    time.sleep(_LEDGER_AGE_S)
    text = client.get("/metrics").raise_for_status().text
    return {state: int(float(count)) for state, count in re.findall(r'shelfsight_ledger_images\{state="(\w+)"\} (\S+)', text)}


def read_backlog(url: str) -> int:
    """Count the images that wait; many while nothing answers, so that a load waits too."""
    try:
        found = re.search(r"^shelfsight_backlog_images (\S+)", httpx.get(f"{url}/metrics", timeout=5).text, re.MULTILINE)
    except httpx.HTTPError:
        found = None
    return int(float(found[1])) if found else 1_000_000


def wait_until_finished(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    """Wait until a batch is finished."""
    until = time.monotonic() + _BATCH_TIMEOUT_S
    while True:
        answer = client.get(f"/image_batches/{batch_id}", params={"wait": 10})
        if answer.status_code == 200 and answer.json()["finished_at"] is not None:
            batch: dict[str, Any] = answer.json()
            return batch
        assert time.monotonic() < until, f"{batch_id}: {answer.status_code} {answer.text[:200]}"
        time.sleep(0.2)


def find_problems(client: httpx.Client, sent: Sequence[AcceptedBatch], before: dict[str, int], *, others: int = 0) -> list[str]:
    """Say what is not as it should be: each picture of each accepted batch once, done, and byte for byte there.

    :param before: the ledger before the load.
    :param others: pictures that were accepted since from somebody else.
    """
    found = []
    for one in sent:
        batch = wait_until_finished(client, one.batch_id)
        if [image["sha256"] for image in batch["images"]] != [picture.sha256 for picture in one.images]:
            found.append(f"{one.batch_id}: other pictures than were sent")
        for image, picture in zip(batch["images"], one.images, strict=False):
            kept = client.get(f"/uploads/{image['id']}.{picture.extension}")
            if image["status"] != "done":
                found.append(f"{image['id']}: {image['status']} {image['error']}")
            elif kept.status_code != 200 or hashlib.sha256(kept.content).hexdigest() != picture.sha256:
                found.append(f"{image['id']}: its file: {kept.status_code}")
    after = read_ledger(client)
    pictures = sum(len(one.images) for one in sent) + others
    if after["received"] - before["received"] != pictures:
        found.append(f"{pictures} pictures were accepted, the ledger has {after['received'] - before['received']} more")
    if after["received"] != after["done"] + after["failed"] + after["cancelled"] + after["pending"] + after["deleted"]:
        found.append(f"the ledger does not balance: {after}")
    return found
