"""The OpenAPI description of annotations."""

from typing import Any, Final

from pydantic import BaseModel

from web.annotations.response_schemas import Annotations
from web.annotations.schemas import Acceptance, NewAnnotations
from web.http.openapi_components import (
    CHANGE_IMAGE_CODES,
    JSON_BODY_CODES,
    if_match,
    json_content,
    path_id,
    problem_responses,
    ref,
)

MODELS: Final[tuple[type[BaseModel], ...]] = (Annotations, NewAnnotations, Acceptance)
_ETAG: Final = {"ETag": {"description": "The version of the annotations, for If-Match", "schema": {"type": "string"}}}
_IF_MATCH: Final = if_match("the annotations of the image have")


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for annotations."""
    return {
        "/images/{image_id}/annotations": {"get": _get(), "put": _replace(), "delete": _delete()},
        "/images/{image_id}/annotations/accept": {"post": _accept()},
    }


def _get() -> dict[str, Any]:
    return {
        "operationId": "getAnnotations",
        "summary": "Get what people say is in a picture. null: nobody has looked at it; an empty list: nothing is there.",
        "parameters": [path_id("image_id")],
        "responses": {"200": _annotations("The annotations")} | problem_responses("not_found", "invalid", "database_unavailable"),
    }


def _replace() -> dict[str, Any]:
    return {
        "operationId": "replaceAnnotations",
        "summary": "Replace all annotations of an image. A box with the id of an annotation keeps this annotation, or changes it; a box without an id is a new one.",
        "parameters": [path_id("image_id"), _IF_MATCH],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("NewAnnotations")}}},
        "responses": {"200": _annotations("The new annotations")} | problem_responses(*JSON_BODY_CODES, *CHANGE_IMAGE_CODES, "image_not_processed"),
    }


def _delete() -> dict[str, Any]:
    return {
        "operationId": "deleteAnnotations",
        "summary": "Remove all annotations of an image, as if nobody had looked at it",
        "parameters": [path_id("image_id"), _IF_MATCH],
        "responses": {"204": {"description": "The image has no annotations"}} | problem_responses(*CHANGE_IMAGE_CODES),
    }


def _accept() -> dict[str, Any]:
    return {
        "operationId": "acceptDetections",
        "summary": "Add the detections of an image to its annotations, but not those that are there already. Their boxes are clipped to the picture.",
        "parameters": [path_id("image_id"), _IF_MATCH],
        "requestBody": {"required": False, "content": {"application/json": {"schema": ref("Acceptance")}}},
        "responses": {"200": _annotations("All annotations of the image")} | problem_responses(*JSON_BODY_CODES, *CHANGE_IMAGE_CODES, "image_not_processed"),
    }


def _annotations(description: str) -> dict[str, Any]:
    return json_content(description, "Annotations") | {"headers": _ETAG}
