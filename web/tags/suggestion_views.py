"""Read the suggestions of tags for one image, and accept or reject them."""

from flask import Blueprint, Response

from shared.catalog import suggestions
from shared.catalog.suggestions import Answer
from shared.storage.mongo import Document
from web import request_bodies
from web.http import access_rules, query
from web.http.authentication import current_principal
from web.http.path_ids import check_image_id
from web.http.responses import json_response
from web.services import current_services
from web.tags import requests, schemas, serializers

blueprint = Blueprint("suggestions", __name__)


@blueprint.get("/images/<image_id>/suggestions")
@access_rules.requires("images:read")
def list_suggestions(image_id: str) -> Response:
    """Return the labels that were seen in an image, and are neither among its tags nor rejected."""
    query.read({})
    check_image_id(image_id)
    return _answer(suggestions.read_image(current_services().db, image_id, current_principal().stores))


@blueprint.post("/images/<image_id>/suggestions")
@access_rules.requires("tags:write", "images:read")  # the response shows what was seen in the image
def settle_suggestions(image_id: str) -> Response:
    """Tag an image with suggestions, or reject them, and return the remaining ones."""
    query.read({})
    check_image_id(image_id)
    answer, principal = request_bodies.read(schemas.SuggestionAnswer), current_principal()
    chosen = Answer(answer.accept, answer.reject)
    return _answer(suggestions.settle(current_services().db, image_id, chosen, principal.stores, principal.by, requests.precondition()))


def _answer(image: Document) -> Response:
    suggested = suggestions.suggest(current_services().db, image)
    response = json_response(serializers.suggestions(suggested.found))
    response.headers["ETag"] = suggested.etag
    return response
