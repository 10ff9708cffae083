"""The states of images and batches, and the rules for retries. All functions are pure."""

from enum import StrEnum
from typing import Final


class ImageState(StrEnum):
    """State of an image. The states ``done``, ``failed`` and ``cancelled`` are terminal."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    """State of a batch, derived from the states of its images."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({ImageState.DONE, ImageState.FAILED, ImageState.CANCELLED})
CLOSED: Final = frozenset({BatchState.DONE, BatchState.PARTIAL, BatchState.FAILED, BatchState.CANCELLED})

SOLO_DEATHS_ALLOWED: Final = 3
"""Number of failed attempts after which an image fails with ``decoder_crash``. An attempt counts if a process that
handled the image alone crashed, raised an unexpected exception, or did not end in time, so the image is the cause."""
SOLO_LOSSES_ALLOWED: Final = 8
"""Number of attempts that ended with the death of a process, for an unknown reason, after which an image fails with
``decoder_crash``. An attempt counts if the process handled the image alone, had begun to process it, and neither stored
a result nor released the image. The image may have crashed the process, but somebody may also have killed it, or
MongoDB was unreachable.

An image that is not the cause must not fail, so more of these attempts are allowed than crashes, and the image waits
longer after each of them. An attempt takes about a second. If somebody kills workers so often that one attempt in ten
is hit (about as often as the long fault run, with 300 kills in 750 s), the probability that all attempts for an image
are hit is 1e-8. On a machine in which processes die for minutes, the waiting times of together 90 s spread the attempts
over at least six minutes with a lease of 30 s."""

READ_ERRORS_ALLOWED: Final = 12
"""Number of attempts in which the bytes of an image could not be read, although other bytes could be written and read,
after which the image fails with ``bytes_missing``. The waiting times between the attempts are together at least three
and a half minutes, which is longer than a network file system usually needs to recover."""


def batch_state(counts: dict[str, int], total: int) -> BatchState:
    """Derive the state of a batch from the number of its images in each state.

    :param counts: number of images by state; a missing state counts as 0.
    :param total: number of images of the batch. If ``counts`` adds up to less, documents of images are missing.
    """
    queued, processing = counts.get(ImageState.QUEUED, 0), counts.get(ImageState.PROCESSING, 0)
    done, failed = counts.get(ImageState.DONE, 0), counts.get(ImageState.FAILED, 0)
    cancelled = counts.get(ImageState.CANCELLED, 0)
    if processing or (queued and (done or failed or cancelled)):
        return BatchState.PROCESSING
    if queued:
        return BatchState.QUEUED
    if cancelled:
        return BatchState.CANCELLED
    if failed:
        return BatchState.PARTIAL if done else BatchState.FAILED
    return BatchState.DONE if done or not total else BatchState.CANCELLED


def retry_delay_s(releases: int) -> float:
    """Return the seconds until an image can be claimed again after a failed attempt: 1, 2, 4, ... up to 30.

    :param releases: number of attempts for this image that failed in the same way before.
    """
    return float(min(30, 2 ** min(releases, 5)))
