"""Find the images that look like one image."""

import re
from typing import Final

from flask import Blueprint, Response

from shared.catalog import near_duplicates
from shared.catalog.near_duplicates import DEFAULT_DISTANCE, MAX_DISTANCE, Position
from shared.ids import IMAGE_ID_PATTERN
from web.http import access_rules, cursor_pages, query, responses
from web.http.authentication import current_principal
from web.http.path_ids import check_image_id
from web.image_serializer import ImageSerializer
from web.services import current_services

blueprint = Blueprint("similar_images", __name__)
_POSITION: Final = re.compile(f"([0-9]{{1,2}})-({IMAGE_ID_PATTERN})")
_PARAMETERS: Final = {"distance": query.integer(0, MAX_DISTANCE), **cursor_pages.PARAMETERS}


@blueprint.get("/images/<image_id>/similar")
@access_rules.requires("images:read")
def list_similar_images(image_id: str) -> Response:
    """List the images that look like one image, the most similar ones first, and then the newest."""
    services = current_services()
    values = query.read(_PARAMETERS)
    paging = cursor_pages.read_paging(values, is_key=lambda text: _POSITION.fullmatch(text) is not None)
    check_image_id(image_id)
    distance = values.get("distance", DEFAULT_DISTANCE)
    found = near_duplicates.find_page(
        services.db,
        image_id,
        current_principal().stores,
        max_distance=distance,
        per_page=paging.per_page,
        after=None if paging.after is None else _read_position(paging.after),
        deadline_s=services.settings.mongo.query_deadline_s,
    )
    serializer = ImageSerializer()
    serializer.load_tags(image for _, image in found.images)
    return responses.json_response(
        {
            "images": [serializer.image(image) | {"distance": bits} for bits, image in found.images],
            "distance": distance,
            "phash": found.phash,
            "complete": found.is_complete,
            "next_cursor": None if found.next_position is None else "{}-{}".format(*found.next_position),
        }
    )


def _read_position(cursor: str) -> Position:
    distance, _, image_id = cursor.partition("-")
    return Position(int(distance), image_id)
