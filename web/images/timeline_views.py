"""Show what has happened to one image."""

from flask import Blueprint, Response

from shared.catalog import image_timelines
from web.http import access_rules, query, responses
from web.http.authentication import current_principal
from web.http.path_ids import check_image_id
from web.images import timeline_serializer
from web.services import current_services

blueprint = Blueprint("timelines", __name__)


@blueprint.get("/images/<image_id>/timeline")
@access_rules.requires("images:read")
def get_timeline(image_id: str) -> Response:
    """Return the timeline of an image."""
    query.read({})
    check_image_id(image_id)
    found = image_timelines.read(current_services().db, image_id, current_principal().stores)
    return responses.json_response(timeline_serializer.timeline(found))
