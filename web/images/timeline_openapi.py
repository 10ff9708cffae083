"""The OpenAPI description of the timeline of an image."""

from typing import Any, Final

from pydantic import BaseModel

from web.http.openapi_components import json_content, of_image
from web.images.timeline_schemas import Timeline

MODELS: Final[tuple[type[BaseModel], ...]] = (Timeline,)
_DESCRIPTION: Final = (
    "The events are in the order of time: the image was received, each attempt to process it with its steps and its error, requests to process "
    "it again or to cancel it, corrections, annotations and tags."
)


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for the timeline of an image."""
    timeline = of_image("getTimeline", "Get what has happened to an image", {"200": json_content("The timeline", "Timeline")})
    return {"/images/{image_id}/timeline": {"get": timeline | {"description": _DESCRIPTION}}}
