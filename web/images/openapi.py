"""The OpenAPI description of images."""

from typing import Any, Final

from pydantic import BaseModel

from web.http.openapi_components import (
    CHANGE_IMAGE_CODES,
    JSON_BODY_CODES,
    if_match,
    json_content,
    path_id,
    problem_responses,
    ref,
)
from web.image_schemas import Image
from web.images import list_openapi, similar_openapi
from web.images.list_schemas import ImagePage
from web.images.schemas import ImageChange

MODELS: Final[tuple[type[BaseModel], ...]] = (Image, ImagePage, ImageChange, *similar_openapi.MODELS)
_ETAG: Final = {"ETag": {"description": "The version of the image, for If-Match", "schema": {"type": "string"}}}
_UNSHOWN: Final = {"description": "The image has been changed. The credentials lack the scope images:read, so it is not shown.", "headers": _ETAG}
_IF_MATCH: Final = if_match("the image has")


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for images."""
    one_image = {"/images/{image_id}": {"get": _get_image(), "patch": _change_image(), "delete": _delete_image()}}
    return list_openapi.paths() | one_image | similar_openapi.paths()


def _get_image() -> dict[str, Any]:
    return {
        "operationId": "getImage",
        "summary": "Get an image",
        "parameters": [path_id("image_id")],
        "responses": {"200": _image("The image")} | problem_responses("not_found", "invalid", "database_unavailable"),
    }


def _change_image() -> dict[str, Any]:
    return {
        "operationId": "changeImage",
        "summary": "Correct fields of an image. A changed barcode is compared with those that were read. A change of the store requires access to both stores.",
        "parameters": [path_id("image_id"), _IF_MATCH],
        "requestBody": {"required": False, "content": {"application/json": {"schema": ref("ImageChange")}}},
        "responses": {"200": _image("The changed image"), "204": _UNSHOWN} | problem_responses(*JSON_BODY_CODES, *CHANGE_IMAGE_CODES),
    }


def _delete_image() -> dict[str, Any]:
    return {
        "operationId": "deleteImage",
        "summary": "Delete an image and its files. With the last image of a batch, the batch is deleted.",
        "parameters": [path_id("image_id"), _IF_MATCH],
        "responses": {"204": {"description": "The image has been deleted"}} | problem_responses(*CHANGE_IMAGE_CODES),
    }


def _image(description: str) -> dict[str, Any]:
    return json_content(description, "Image") | {"headers": _ETAG}
