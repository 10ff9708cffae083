"""The OpenAPI description of images."""

from typing import Any, Final

from pydantic import BaseModel

from web.http.openapi_components import json_content, of_image
from web.image_schemas import Image
from web.images import list_openapi, similar_openapi, timeline_openapi
from web.images.list_schemas import ImagePage
from web.images.schemas import ImageChange

MODELS: Final[tuple[type[BaseModel], ...]] = (Image, ImagePage, ImageChange, *similar_openapi.MODELS, *timeline_openapi.MODELS)
_ETAG: Final = {"ETag": {"description": "The version of the image, for If-Match", "schema": {"type": "string"}}}
_UNSHOWN: Final = {"description": "The image has been changed. The credentials lack the scope images:read, so it is not shown.", "headers": _ETAG}
_SUBJECT: Final = "the image has"
_CHANGE: Final = "A changed barcode is compared with those that were read. A change of the store requires access to both stores."


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for images."""
    one_image = {
        "get": of_image("getImage", "Get an image", {"200": _image("The image")}),
        "patch": of_image(
            "changeImage",
            "Correct fields of an image",
            {"200": _image("The changed image"), "204": _UNSHOWN},
            etag_of=_SUBJECT,
            body="ImageChange",
        )
        | {"description": _CHANGE},
        "delete": of_image(
            "deleteImage",
            "Delete an image and its files. With the last image of a batch, the batch is deleted.",
            {"204": {"description": "The image has been deleted"}},
            etag_of=_SUBJECT,
        ),
    }
    return list_openapi.paths() | {"/images/{image_id}": one_image} | similar_openapi.paths() | timeline_openapi.paths()


def _image(description: str) -> dict[str, Any]:
    return json_content(description, "Image") | {"headers": _ETAG}
