"""Why attempts to process an image have failed, or have ended without a result: the stable codes and their sentences."""

import re
from typing import Final

_SENTENCES: Final = {
    "lease_expired": "The worker has died, or had no connection to the database for too long.",
    "worker_stopped": "The worker was stopped.",
    "not_begun": "The worker had claimed the image in advance, and has ended before it began to process it.",
    "time_over": "The images of the same claim took so long that this one was left for the next claim.",
    "time_limit": "The processing took longer than a task may take.",
    "helper_killed": "The process that decodes images was killed.",
    "database_unavailable": "The database did not respond.",
    "database_misconfigured": "The database refused the worker. An operator must correct its settings.",
    "blobs_unavailable": "The blob store did not respond.",
    "blobs_misconfigured": "The blob store refused the worker. An operator must correct its settings.",
    "disk_full": "The disk of the blob store was full.",
    "unavailable": "The worker could not start what it needs to process images.",
    "unexpected_error": "An error that is not expected occurred. The log of the worker contains it.",
}
_STOPS: Final = frozenset({"SystemExit", "KeyboardInterrupt"})
_CODE: Final = re.compile("[a-z_]+")
_UNKNOWN: Final = "The worker released the image."


def describe(outcome: str | None, code: str | None, detail: str | None) -> dict[str, str] | None:
    """Return the code and the sentence of an attempt, or None if it has a successful result or is running.

    :param code: the code that the worker has stored, or the name of the class of an exception that it did not expect.
    :param detail: the sentence of a failure; None for other outcomes.
    """
    if outcome == "expired":
        code = "lease_expired"
    if code is None:
        return None
    if detail is None:
        code = "worker_stopped" if code in _STOPS else code if _CODE.fullmatch(code) else "unexpected_error"
        detail = _SENTENCES.get(code, _UNKNOWN)
    return {"code": code, "detail": detail}
