"""The pydantic model for the JSON body of an inspection request. It validates requests, and OpenAPI is generated from it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.fetch.urls import MAX_LENGTH
from shared.variants import DREAM_LAYERS


class ImageByUrl(BaseModel):
    """The URL of an image to be inspected, with options."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_LENGTH), Field(examples=["https://example.org/shelf.jpg"])]
    effect: Literal["deepdream"] | None = None
    layer: Annotated[int, Field(strict=True, ge=DREAM_LAYERS[0], le=DREAM_LAYERS[-1])] | None = None
    strength: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
