"""Names of batches and images. A batch is a UUIDv7, so ids sort by time; an image's id is its batch's plus its index.

That an image names its batch saves an index and a look-up, and puts a batch's files side by side.
"""

import re
from typing import Final

import uuid_utils

_BATCH: Final = re.compile(r"[0-9a-f]{32}\Z")
_IMAGE: Final = re.compile(r"[0-9a-f]{36}\Z")


def new_batch_id() -> str:
    """Make a batch id: a UUIDv7 (RFC 9562) as 32 hex digits."""
    return uuid_utils.uuid7().hex


def image_id(batch_id: str, index: int) -> str:
    """Name the image that was number ``index`` (0..65,535) of its request."""
    return f"{batch_id}{index:04x}"


def batch_of(image_id: str) -> str:
    """Give the batch of an image."""
    return image_id[:32]


def is_batch_id(text: str) -> bool:
    """Say whether a text has the form of a batch id."""
    return bool(_BATCH.match(text))


def is_image_id(text: str) -> bool:
    """Say whether a text has the form of an image id."""
    return bool(_IMAGE.match(text))
