"""Records what happens to an image in ``Image.history``, as a part of the writes that happen anyway.

Each function returns a part of an update. The numbers of entries are limited, so that the document of an image that a worker
dies of again and again does not grow. ``work.fence`` counts the attempts, and ``history.requested`` the requests, so it is known how
many entries have been dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from shared.clock import utc_now
from shared.storage.mongo import Document

MAX_ATTEMPTS: Final = 20
MAX_REQUESTS: Final = 10
MAX_DETAIL_LENGTH: Final = 250
"""Maximum length, in characters, of the sentence of an error in an attempt. Those that workers store are shorter."""
STEPS: Final = ("load_ms", "decode_ms", "detect_ms", "finish_ms", "write_ms")
"""The steps of an attempt, in their order: read the original and store it under its own key; decode it and measure it; run the
model; draw and encode the variants; write their files."""
CLAIMED: Final = {"work.claimed_at": "$$NOW"}
"""What a claim sets, as aggregation expressions. It is null again after the end of each attempt."""

RequestKind = Literal["reprocess", "cancel"]


@dataclass(frozen=True, slots=True)
class Measured:
    """When an attempt began and ended, by MongoDB's clock (naive UTC), and what its steps took, in milliseconds.

    ``begun`` is None if it is unknown. ``steps`` has only the steps that were begun. ``is_first`` says that the image had no history
    when it was claimed. While it is held, nothing else writes its history.
    """

    begun: datetime | None = None
    ended: datetime | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    is_first: bool = False


def record_attempt(worker: str, fence: int, error: tuple[str, str] | None, measured: Measured) -> Document:
    """Return the update operators that record an attempt that ended with a result.

    :param worker: the owner of the claim.
    :param error: the code and the sentence of a failure.
    """
    entry: Document = {"worker": worker, "fence": fence, "begun": measured.begun, "ended": measured.ended or utc_now()}
    if error is None:
        entry |= {"outcome": "done", "code": None}
    else:
        entry |= {"outcome": "failed", "code": error[0], "detail": error[1][:MAX_DETAIL_LENGTH]}
    if measured.steps:
        entry["steps"] = {name: round(measured.steps[name], 1) for name in STEPS if name in measured.steps}
    if measured.is_first:  # nearly all attempts; MongoDB needs a seventh less CPU time for the whole update than with $push (measured)
        return {"$set": {"history": {"attempts": [entry]}}}
    return {"$push": {"history.attempts": {"$each": [entry], "$slice": -MAX_ATTEMPTS}}}


def append_attempt(outcome: Literal["released", "expired"], code: str | None) -> Document:
    """Return the fields to set, in an update with an aggregation pipeline, that record an attempt that ends without a result.

    :param code: why the claim was released.
    """
    entry = {
        "worker": "$work.owner",
        "fence": "$work.fence",
        "begun": "$work.claimed_at",
        "ended": "$$NOW",
        "outcome": outcome,
        "code": {"$literal": code},
    }
    return {"history.attempts": _appended("$history.attempts", entry, MAX_ATTEMPTS)}


def append_request(kind: RequestKind, by: str | None, **values: Any) -> Document:
    """Return the fields to set, in an update with an aggregation pipeline, that record a request.

    :param by: who made the request (``Principal.by``).
    :param values: further members of ``schema.timelines.Request``. They are no expressions.
    """
    entry = {"kind": kind, "at": "$$NOW", "by": {"$literal": by}} | {name: {"$literal": value} for name, value in values.items()}
    return {
        "history.requests": _appended("$history.requests", entry, MAX_REQUESTS),
        "history.requested": {"$add": [{"$ifNull": ["$history.requested", 0]}, 1]},
    }


def _appended(array: str, entry: Document, most: int) -> Document:
    """Return an expression for an array with a further entry, without the oldest ones if there are more than ``most``."""
    return {"$slice": [{"$concatArrays": [{"$ifNull": [array, []]}, [entry]]}, -most]}
