"""What the API answers with, as models; what it is asked with is in ``web.uploads.schemas``."""

from typing import Any

from pydantic import BaseModel

from shared.states import BatchState, ImageState


class FieldProblem(BaseModel):
    """One bad field."""

    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = None
    limit: str | None = None
    value: int | None = None
    free: int | None = None
    accepted: list[str] | None = None
    batch_id: str | None = None
    upstream_status: int | None = None


class Detection(BaseModel):
    """Something found; ``box`` is x1, y1, x2, y2 in pixels of the upright image."""

    label: str
    score: float
    box: list[float]


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


class AcceptedImage(BaseModel):
    """An image's line in the answer to an upload."""

    id: str | None
    index: int
    file_path: str | None
    status: str
    errors: list[FieldProblem] | None = None


class Picture(BaseModel):
    """A picture as it was sent, and where it is shown: at most 700 pixels long, as a JPEG."""

    format: str
    mode: str
    width: int
    height: int
    bytes: int
    frames: int
    sha256: str
    url: str


class Augmented(BaseModel):
    """A picture that an augmentation made; ``url`` is null where ``error`` says that it could not."""

    name: str
    params: dict[str, Any] | None = None
    error: str | None = None
    url: str | None


class Look(BaseModel):
    """A picture and its augmentations."""

    source: str
    image: Picture
    augmentations: list[Augmented]
    seed: int
    links: dict[str, str]


class Share(BaseModel):
    """A colour and how much of the picture has it."""

    hex: str
    share: float


class Effect(BaseModel):
    """What was made of a picture by its effect."""

    name: str
    layer: int
    strength: float
    url: str


class Description(Picture):
    """What is known of a picture and what is in it; ``source`` is null for one that was sent."""

    source: str | None
    exif: dict[str, Any] | None
    icc: str | None
    phash: str
    brightness: float
    sharpness: float
    dominant_colors: list[Share]
    detections: list[Detection]
    model: dict[str, str] | None
    barcodes: list[dict[str, Any]]
    effect: Effect | None = None
    links: dict[str, str]


class Awaited(BaseModel):
    """An inspection that is not done yet."""

    id: str
    status: str
    source: str | None
    links: dict[str, str]


class LimitsShown(BaseModel):
    """What an upload may be."""

    max_body_bytes: int
    max_images: int
    max_image_bytes: int
    max_pixels: int
    formats: list[str]
    augmentations: list[str]
    default_augmentations: list[str]


class Accepted(BaseModel):
    """The answer to an upload."""

    batch_id: str
    status: str
    total: int
    images: list[AcceptedImage]
    links: dict[str, str]
    accepted: int | None = None
    rejected: int | None = None
