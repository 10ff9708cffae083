"""Response bodies about batches."""

from typing import Any

from pydantic import BaseModel

from shared.states import BatchState, ImageState
from web.http.detection_schema import Detection


class Image(BaseModel):
    """An image as it is shown."""

    id: str
    batch_id: str
    index: int
    status: ImageState
    file_path: str
    url: str
    timestamp: str
    store_name: str
    camera_id: str
    barcode: str | None
    filename: str | None
    extra: dict[str, Any]
    content_type: str
    file_size: int
    sha256: str
    width: int | None
    height: int | None
    exif: dict[str, Any] | None
    quality: dict[str, float] | None
    detections: list[Detection]
    model: dict[str, str] | None
    augmentations: list[dict[str, Any]]
    barcodes: list[dict[str, Any]]
    barcode_check: str | None
    tags: list[str]
    error: dict[str, str] | None
    created_at: str
    updated_at: str
    finished_at: str | None


class Batch(BaseModel):
    """A batch as it is shown."""

    id: str
    status: BatchState
    total: int
    counts: dict[str, int]
    created_at: str
    finished_at: str | None
    images: list[Image]
    images_more: bool | None = None


class BatchPage(BaseModel):
    """A list of batches; ``page``, ``total`` and ``pages`` are absent with ``cursor=``."""

    per_page: int
    page: int | None = None
    total: int | None = None
    pages: int | None = None
    next_cursor: str | None
    batches: list[Batch]


