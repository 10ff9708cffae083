"""Read files, send them in groups, and ask for results. These functions use no state, so they can run in other threads."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.client import local_files
from scripts.client.groups import Image
from scripts.client.local_files import Identity
from scripts.client.send_group import Sender
from scripts.client.uploader import GroupResult, parse_result
from scripts.client.watching.state import WatchedFile


class Refused(Exception):
    """A file cannot be sent, and will not be as long as it is not changed. The message is a sentence with a code."""


class Unsettled(Exception):
    """The file is not what it was when it was found."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file with its bytes, as it is sent."""

    file: WatchedFile
    image: Image
    data: bytes


def read(path: str, identity: Identity, fields: dict[str, Any], max_bytes: int) -> ReadFile:
    """Read a file.

    :param identity: the file that is expected there.
    :raises Unsettled: when the path names another file, or the file changes while it is read.
    :raises OSError: when it cannot be read.
    """
    with local_files.opened(Path(path), follow_links=False) as opened:
        if Identity.of(os.fstat(opened.fileno())) != identity:
            raise Unsettled
        data = opened.read(min(identity.size, max_bytes) + 1)
        if Identity.of(os.fstat(opened.fileno())) != identity or (identity.size <= max_bytes and len(data) != identity.size):
            raise Unsettled
    image = Image(Path(path), identity.size, identity.mtime_ns, fields)
    return ReadFile(WatchedFile(path, identity, hashlib.sha256(data).hexdigest()), image, data)


def check(found: ReadFile, max_bytes: int) -> None:
    """Check what the service would refuse for certain.

    :raises Refused: when the file is empty or too large, or has no valid time.
    """
    if not found.image.size:
        raise Refused("empty: The file is empty.")
    if found.image.size > max_bytes:
        raise Refused(f"image_too_large: The image has {found.image.size} bytes; at most {max_bytes} are allowed.")
    try:
        found.image.metadata  # noqa: B018 -- it raises an error if the modification time is impossible
    except ValueError as error:
        raise Refused(f"bad_timestamp: {error} Set --timestamp.") from None


def send(sender: Sender, key: str, files: list[ReadFile]) -> GroupResult | None:
    """Send files in one request.

    :returns: the result; None if an earlier request with this key was accepted with other files.
    :raises GaveUp: when the service does not accept the request.
    """
    body = sender.send(key, [(found.image, found.data) for found in files])
    return None if body.get("code") == "idempotency_mismatch" else parse_result(body, [found.image for found in files])


def fetch_results(sender: Sender, batch_id: str, files: list[WatchedFile]) -> list[tuple[str, str, str]]:
    """Return the path, the state and a sentence for each of the files in a batch that has a result.

    A file is ``done`` only if the receipt of the batch has the digest of the bytes that were read when it was sent.

    :raises GaveUp: when the service does not respond, or refuses the API key.
    """
    receipt = sender.fetch_receipt(batch_id)
    stored = {} if receipt is None else {image["index"]: image for image in receipt["images"]}
    results = []
    for file in files:
        image = stored.get(file.position)
        if image is None:
            results.append((file.path, "missing", "The service does not have the image any more; it was deleted, or the API key does not include its store."))
        elif image["sha256"] != file.sha256:
            results.append((file.path, "different", "The service has stored other bytes than those of the file."))
        elif image["status"] == "done":
            results.append((file.path, "done", ""))
        elif image["status"] == "cancelled":
            results.append((file.path, "failed", "cancelled: The image was cancelled."))
        elif image["status"] == "failed":
            results.append((file.path, "failed", sender.fetch_error(image["id"])))
    return results
