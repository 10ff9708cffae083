"""The pydantic models for the responses of inspections."""

from typing import Any, Final

from pydantic import BaseModel

from shared.storage import schema
from web.http.openapi_models import response_model

Detection: Final[Any] = response_model(schema.Detection)


class InspectedImage(BaseModel):
    """Properties of the source image. ``url`` leads to a JPEG copy that has at most 700 pixels on its longer side."""

    format: str
    mode: str
    width: int
    height: int
    bytes: int
    frames: int
    sha256: str
    url: str


class Augmentation(BaseModel):
    """An augmentation of the image. If the augmentation failed, ``error`` is set and ``url`` is null."""

    name: str
    params: dict[str, Any] | None = None
    error: str | None = None
    url: str | None


class AugmentedImage(BaseModel):
    """An image and its augmentations."""

    source: str
    image: InspectedImage
    augmentations: list[Augmentation]
    seed: int
    links: dict[str, str]


class ColorShare(BaseModel):
    """A color in the image. ``share`` is the fraction of the image area that has this color."""

    hex: str
    share: float


class Effect(BaseModel):
    """The image made by the requested effect."""

    name: str
    layer: int
    strength: float
    url: str


class ImageDescription(InspectedImage):
    """Properties of an image, and the objects detected in it. ``source`` is null for an uploaded image."""

    source: str | None
    exif: dict[str, Any] | None
    icc: str | None
    phash: str
    brightness: float
    sharpness: float
    dominant_colors: list[ColorShare]
    detections: list[Detection]
    model: dict[str, str] | None
    barcodes: list[dict[str, Any]]
    effect: Effect | None = None
    links: dict[str, str]


class PendingInspection(BaseModel):
    """An inspection that is not finished yet."""

    id: str
    status: str
    source: str | None
    links: dict[str, str]
