"""The pydantic model of an image in responses. It is generated from the database schema in ``shared.storage.schema``."""

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
