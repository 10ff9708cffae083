"""The pydantic models for responses with batches.

The ``Batch`` model is generated from the database schema in ``shared.storage.schema``.
"""

from typing import Any, Final

from pydantic import BaseModel

from shared.storage import schema
from web.http.openapi_models import response_model
from web.image_schemas import Image

Batch: Final[Any] = response_model(schema.Batch, ("images", (list[Image], ...)), ("images_more", (bool | None, None)))


class BatchPage(BaseModel):
    """A list of batches.

    If the request has ``cursor``, the ``page``, ``total`` and ``pages`` fields are absent. ``total`` and ``pages`` are null
    if the reader has access to several stores, but not to all, and the request does not name one of them.
    """

    per_page: int
    page: int | None = None
    total: int | None = None
    pages: int | None = None
    next_cursor: str | None
    batches: list[Batch]


class CancelledBatch(BaseModel):
    """How many images a request to cancel has ended, and how many images were being processed at that moment."""

    cancelled: int
    running: int


class ReprocessedBatch(BaseModel):
    """How many images were queued again.

    ``queued`` is 0 if no finished image was chosen, for example because all wait or are being processed. ``generation`` increases
    with each request that queues images of the batch.
    """

    queued: int
    generation: int
