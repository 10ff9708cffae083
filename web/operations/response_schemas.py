"""The pydantic model for the response to ``GET /limits``."""

from pydantic import BaseModel


class UploadLimits(BaseModel):
    """The limits of an upload."""

    max_body_bytes: int
    max_images: int
    max_image_bytes: int
    max_pixels: int
    formats: list[str]
    augmentations: list[str]
    default_augmentations: list[str]
