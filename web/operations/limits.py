"""Return the limits of an upload, so that clients can split their images into batches that are small enough."""

from flask import Blueprint, Response

from shared.augmentations import AUGMENTATIONS
from shared.media_types import SIGNATURES
from web.http import access_rules, query
from web.http.responses import json_response
from web.services import current_services

blueprint = Blueprint("limits", __name__)


@blueprint.get("/limits")
@access_rules.public
def limits() -> Response:
    """Return the limits, the image formats and the augmentations that are valid for an upload."""
    query.read({})
    settings = current_services().settings
    return json_response(
        {
            "max_body_bytes": settings.limits.max_body_bytes,
            "max_images": settings.limits.max_images,
            "max_image_bytes": settings.limits.max_image_bytes,
            "max_pixels": settings.limits.max_pixels,
            "formats": list(SIGNATURES),
            "augmentations": list(AUGMENTATIONS),
            "default_augmentations": list(settings.default_augmentations),
        }
    )
