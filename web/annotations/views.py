"""Read and change the annotations of one image, and take detections over."""

from typing import Final

from flask import Blueprint, Response

from shared.catalog import annotations, image_changes
from shared.ledger import queries
from shared.storage.mongo import Document
from web import request_bodies
from web.annotations.schemas import Acceptance, NewAnnotations
from web.http import access_rules, preconditions, query, responses
from web.http.authentication import current_principal
from web.http.path_ids import check_image_id
from web.services import current_services

blueprint = Blueprint("annotations", __name__)
MAX_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of the body of ``PUT``. The maximum number of boxes fits, with labels of the maximum length, also if each of their
characters is escaped as a surrogate pair (12 bytes)."""
_MAX_VALUES: Final = 100_000
"""More than 10,000 boxes, so that the sentence for a list that is too long names the maximum number of boxes."""


@blueprint.get("/images/<image_id>/annotations")
@access_rules.requires("images:read")
def get_annotations(image_id: str) -> Response:
    """Return the annotations of an image."""
    _check(image_id)
    return _response(queries.get_image(current_services().db, image_id, current_principal().stores))


@blueprint.put("/images/<image_id>/annotations")
@access_rules.requires("tags:write")
def replace_annotations(image_id: str) -> Response:
    """Replace all annotations of an image, and return them."""
    _check(image_id)
    boxes = request_bodies.read(NewAnnotations, max_bytes=MAX_BYTES, max_values=_MAX_VALUES).as_boxes()
    services, principal = current_services(), current_principal()
    return _response(annotations.replace(services.db, image_id, principal.stores, boxes, principal.by, _check_if_match))


@blueprint.delete("/images/<image_id>/annotations")
@access_rules.requires("tags:write")
def delete_annotations(image_id: str) -> Response:
    """Remove all annotations of an image, as if nobody had looked at it."""
    _check(image_id)
    principal = current_principal()
    annotations.remove(current_services().db, image_id, principal.stores, principal.by, _check_if_match)
    return Response(status=204)


@blueprint.post("/images/<image_id>/annotations/accept")
@access_rules.requires("tags:write", "images:read")  # the response shows the detections
def accept_detections(image_id: str) -> Response:
    """Add the detections of an image to its annotations, and return all of them."""
    _check(image_id)
    min_score = request_bodies.read(Acceptance).min_score
    services, principal = current_services(), current_principal()
    return _response(annotations.accept_detections(services.db, image_id, principal.stores, min_score, principal.by, _check_if_match))


def _check(image_id: str) -> None:
    query.read({})
    check_image_id(image_id)


def _check_if_match(image: Document) -> None:
    preconditions.check_if_match(image_changes.annotations_etag(image))


def _response(image: Document) -> Response:
    response = responses.json_response({"annotations": image.get("annotations")})
    response.headers["ETag"] = image_changes.annotations_etag(image)
    return response
