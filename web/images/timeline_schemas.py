"""The pydantic models of the timeline of an image. OpenAPI is generated from them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.ledger.reprocessing import Only
from shared.states import ImageState


class _Event(BaseModel):
    at: datetime


class _RequestEvent(_Event):
    by: str | None = Field(description="The name of the user, or `key:<id>`; null if access was open")


class ReceivedEvent(_RequestEvent):
    """The image was accepted, as a part of a batch."""

    type: Literal["received"]
    batch_id: str


class StepTimes(BaseModel):
    """What the steps of an attempt took, in milliseconds; null: the step was not begun.

    ``load_ms``: read the original and store it under its own key. ``decode_ms``: decode it and measure it, which includes the
    barcodes and the thumbnail. ``detect_ms``: run the model. ``finish_ms``: draw and encode the variants. ``write_ms``: write their
    files. What is done for several images at once counts for each of them with an equal share. Waiting does not count.
    """

    load_ms: float | None
    decode_ms: float | None
    detect_ms: float | None
    finish_ms: float | None
    write_ms: float | None


class AttemptError(BaseModel):
    """Why an attempt has failed, or has ended without a result."""

    code: str
    detail: str


class AttemptEvent(_Event):
    """An attempt of a worker to process the image.

    ``begun_at`` and ``number`` are those of the claim of the image. ``outcome`` and ``ended_at`` are null while it is running.
    ``released``: the worker could not finish it, for a reason that does not lie with the image or must be confirmed by another
    attempt. ``expired``: the worker died, or lost its connection. After both, there is another attempt, unless the image was
    cancelled. ``begun_at`` is null if an older version of the worker has made the attempt; then ``at`` is the time of its end.
    """

    type: Literal["attempt"]
    number: int
    worker: str | None
    begun_at: datetime | None
    ended_at: datetime | None
    outcome: Literal["done", "failed", "released", "expired"] | None
    error: AttemptError | None
    steps: StepTimes | None


class ReprocessRequestedEvent(_RequestEvent):
    """The image was queued to be processed again.

    ``only`` is that of the request, which chose the image. ``priority`` is that with which the request queued its images; null if they
    kept theirs. ``augmentations`` and ``detect`` are null if they are those of the last time.
    """

    type: Literal["reprocess_requested"]
    generation: int
    job_id: str | None
    only: Only | None
    priority: Literal["normal", "low"] | None
    augmentations: list[str] | None
    detect: bool | None


class CancelledEvent(_RequestEvent):
    """The image was taken out of the queue, because its batch was cancelled. A result that it had before stays.

    ``at`` is when that happened, and ``by`` who has cancelled the batch. It can be later than the request: an image that a worker was
    processing then is taken out only when the worker has lost it.
    """

    type: Literal["cancelled"]


class CorrectedEvent(_RequestEvent):
    """A field of the image was corrected.

    ``from`` and ``to`` are its values. They are null for ``extra``, and for names of stores that the reader has no access to.
    """

    type: Literal["corrected"]
    field: Literal["timestamp", "store_name", "camera_id", "barcode", "extra"]
    before: str | None = Field(alias="from")
    after: str | None = Field(alias="to")


class AnnotatedEvent(_RequestEvent):
    """The annotations were changed. ``boxes`` is their number after the change (0: an empty list); null: they were deleted."""

    type: Literal["annotated"]
    boxes: int | None


class TaggedEvent(_RequestEvent):
    """The image was tagged with a tag that it has now."""

    type: Literal["tagged"]
    tag: str


class UntaggedEvent(_RequestEvent):
    """Tags were removed from the image. ``number`` is their number, and ``tags`` are the names of the first of them that still exist."""

    type: Literal["untagged"]
    tags: list[str]
    number: int


_AnyEvent = (
    ReceivedEvent | AttemptEvent | ReprocessRequestedEvent | CancelledEvent | CorrectedEvent | AnnotatedEvent | TaggedEvent | UntaggedEvent
)


class Timeline(BaseModel):
    """What has happened to an image, in the order of time.

    ``next_attempt_at`` is the time from which a worker can begin the next attempt; null unless the image is queued. ``omitted`` is the
    number of attempts, requests and changes before the oldest ones that are kept.
    """

    image_id: str
    status: ImageState
    next_attempt_at: datetime | None
    omitted: int
    events: list[Annotated[_AnyEvent, Field(discriminator="type")]]
