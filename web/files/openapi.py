"""The OpenAPI description of the operations that return the files of a batch."""

from typing import Any

from shared.augmentations import AUGMENTATIONS
from shared.variants import BOXES, THUMB
from web.http.openapi_components import file_operation, parameter, path_id


def paths() -> dict[str, Any]:
    """Return the OpenAPI path items for the files of a batch."""
    name = parameter("name", {"type": "string"}, where="path")
    variant = parameter("variant", {"type": "string", "enum": [THUMB, BOXES, *AUGMENTATIONS]}, where="path")
    return {
        "/uploads/{name}": {"get": file_operation("getFile", "Get the stored image", [name], "image_pending", "image_failed", "image_cancelled")},
        "/uploads/{image_id}/{variant}.jpg": {
            "get": file_operation("getVariant", "Get a variant of the image", [path_id("image_id"), variant], "image_pending", "image_failed", "image_cancelled")
        },
    }
