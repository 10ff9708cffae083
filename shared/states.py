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
"""Number of crashes after which an image fails with ``decoder_crash``. Only crashes of a process that handled the image
alone are counted, so the image must be their cause."""


def batch_state(counts: dict[str, int], total: int) -> BatchState:
    """Derive the state of a batch from the number of its images in each state.

    :param counts: number of images by state; a missing state counts as 0.
    :param total: number of images in the batch when it was accepted. If ``counts`` adds up to less, the missing images
        were deleted individually.
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
    """Return the seconds until an image can be claimed again after an environment error: 1, 2, 4, ... up to 30.

    :param releases: number of times that the image was released before.
    """
    return float(min(30, 2 ** min(releases, 5)))
