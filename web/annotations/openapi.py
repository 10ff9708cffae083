"""The OpenAPI description of annotations."""

from typing import Any, Final

from pydantic import BaseModel

from web.annotations.response_schemas import Annotations
from web.annotations.schemas import Acceptance, NewAnnotations
from web.http.openapi_components import json_content, of_image

MODELS: Final[tuple[type[BaseModel], ...]] = (Annotations, NewAnnotations, Acceptance)
_ETAG: Final = {"ETag": {"description": "The version of the annotations, for If-Match", "schema": {"type": "string"}}}
_SUBJECT: Final = "the annotations of the image have"
_REPLACE: Final = "A box with the id of an annotation keeps this annotation, or changes it; a box without an id is a new one."


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for annotations."""
    annotations = {
        "get": of_image(
            "getAnnotations",
            "Get what people say is in a picture. null: nobody has looked at it; an empty list: nothing is there.",
            {"200": _annotations("The annotations")},
        ),
        "put": of_image(
            "replaceAnnotations",
            "Replace all annotations of an image",
            {"200": _annotations("The new annotations")},
            "image_not_processed",
            etag_of=_SUBJECT,
            body="NewAnnotations",
            requires_body=True,
        )
        | {"description": _REPLACE},
        "delete": of_image(
            "deleteAnnotations",
            "Remove all annotations of an image, as if nobody had looked at it",
            {"204": {"description": "The image has no annotations"}},
            etag_of=_SUBJECT,
        ),
    }
    accept = of_image(
        "acceptDetections",
        "Add the detections of an image to its annotations",
        {"200": _annotations("All annotations of the image")},
        "image_not_processed",
        etag_of=_SUBJECT,
        body="Acceptance",
    )
    accept |= {"description": "Detections that are there already are left out. Boxes are clipped to the picture."}
    return {"/images/{image_id}/annotations": annotations, "/images/{image_id}/annotations/accept": {"post": accept}}


def _annotations(description: str) -> dict[str, Any]:
    return json_content(description, "Annotations") | {"headers": _ETAG}
