"""Ids of batches and images.

A batch id is a UUIDv7, so batch ids sort by time. An image id is the batch id followed by the index of the image, so
the batch of an image is known without a database index or a query, and the files of a batch are stored together.
"""

import re
from datetime import datetime, timedelta
from typing import Final

import uuid_utils

BATCH_ID_LENGTH: Final = 32
BATCH_ID_PATTERN: Final = f"[0-9a-f]{{{BATCH_ID_LENGTH}}}"
IMAGE_ID_LENGTH: Final = 36
IMAGE_ID_PATTERN: Final = f"[0-9a-f]{{{IMAGE_ID_LENGTH}}}"
DIGEST_ID_PATTERN: Final = "[0-9a-f]{32}"
"""Pattern of the ids of inspections and of their results. These ids are digests with 128 bits."""
EVENT_ID_PATTERN: Final = "[0-9a-f]{32}"
_MAX_INDEX: Final = 0xFFFF
SHA256_PATTERN: Final = "[0-9a-f]{64}"
_BATCH_ID: Final = re.compile(BATCH_ID_PATTERN)
_IMAGE_ID: Final = re.compile(IMAGE_ID_PATTERN)
_DIGEST_ID: Final = re.compile(DIGEST_ID_PATTERN)
_SHA256: Final = re.compile(SHA256_PATTERN)


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562) as 32 hex digits. Such ids sort by the time at which they were made."""
    return uuid_utils.uuid7().hex


def new_batch_id() -> str:
    """Return a new batch id."""
    return new_id()


def smallest_batch_id(moment: datetime) -> str:
    """Return the smallest possible batch id for a time (naive UTC). A UUIDv7 begins with 48 bits of Unix milliseconds."""
    millis = max(0, int((moment - datetime(1970, 1, 1)).total_seconds() * 1000))
    return f"{millis:012x}{'0' * 20}"


def time_of(batch_id: str) -> datetime:
    """Return the time at which an id was made (naive UTC), in whole milliseconds."""
    return datetime(1970, 1, 1) + timedelta(milliseconds=int(batch_id[:12], 16))


def image_id(batch_id: str, index: int) -> str:
    """Return the id (36 hex digits) of the image at position ``index`` (0 to 65,535) in its upload."""
    return f"{batch_id}{index:04x}"


def batch_of(image_id: str) -> str:
    """Return the id of the batch that an image belongs to."""
    return image_id[:BATCH_ID_LENGTH]


def batch_range(batch_id: str) -> dict[str, str]:
    """Return the MongoDB condition on ``_id`` that the ids of the images of a batch meet, and no others."""
    return {"$gte": image_id(batch_id, 0), "$lte": image_id(batch_id, _MAX_INDEX)}


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id that ``new_id`` makes."""
    return is_batch_id(text)


def is_batch_id(text: str) -> bool:
    """Return whether a text has the form of a batch id."""
    return _BATCH_ID.fullmatch(text) is not None


def is_image_id(text: str) -> bool:
    """Return whether a text has the form of an image id."""
    return _IMAGE_ID.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Return whether a text is a SHA-256 as the service stores it, in lower case."""
    return _SHA256.fullmatch(text) is not None


def is_digest_id(text: str) -> bool:
    """Return whether a text has the form of an id of an inspection or of its result."""
    return _DIGEST_ID.fullmatch(text) is not None
