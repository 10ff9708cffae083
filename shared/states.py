"""Pure rules: the states of an image and of a batch, when to retry, when to give up."""

from enum import StrEnum
from typing import Final


class ImageState(StrEnum):
    """Where an image stands. ``done``, ``failed`` and ``cancelled`` are terminal."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    """Where a batch stands, derived from its images."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({ImageState.DONE, ImageState.FAILED, ImageState.CANCELLED})
CLOSED: Final = frozenset({BatchState.DONE, BatchState.PARTIAL, BatchState.FAILED, BatchState.CANCELLED})

SOLO_DEATHS_ALLOWED: Final = 3
"""A picture over which three processes crashed, alone with it, is the cause: ``decoder_crash``."""


def batch_state(counts: dict[str, int], total: int) -> BatchState:
    """Derive the state of a batch from how many of its images stand where.

    :param counts: images by state; a missing state counts as 0.
    :param total: the number of images that the batch was accepted with. Images not in ``counts`` were deleted singly.
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
    """Seconds until an image released by an environment error may be claimed again: 1, 2, 4 ... 30.

    :param releases: how often it was released before.
    """
    return float(min(30, 2 ** min(releases, 5)))

