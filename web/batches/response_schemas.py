"""The pydantic models for responses with batches.

The ``Image`` and ``Batch`` models are generated from the database schema in ``shared.storage.schema``.
"""

from typing import Any, Final

from pydantic import BaseModel

from shared.storage import schema
from web.http.openapi_models import response_model


class ImageUrls(BaseModel):
    """The signed URLs of the thumbnail and of the picture with the detections drawn in."""

    thumb: str
    boxes: str


Image: Final[Any] = response_model(
    schema.Image, ("file_path", (str, ...)), ("url", (str, ...)), ("urls", (ImageUrls | None, None)), after="status"
)
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
