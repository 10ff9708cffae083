"""Read and change the tags of one image."""

from flask import Blueprint, Response

from shared.catalog import image_tags
from shared.storage.mongo import Document
from web import request_bodies
from web.http import access_rules, query
from web.http.authentication import current_principal
from web.http.path_ids import check_image_id
from web.http.responses import json_response
from web.services import current_services
from web.tags import requests, schemas, serializers

blueprint = Blueprint("image_tags", __name__)


@blueprint.get("/images/<image_id>/tags")
@access_rules.requires("images:read")
def list_image_tags(image_id: str) -> Response:
    """Return the tags of an image, with who tagged it and when."""
    query.read({})
    check_image_id(image_id)
    return _answer(image_tags.read_image(current_services().db, image_id, current_principal().stores))


@blueprint.put("/images/<image_id>/tags")
@access_rules.requires("tags:write")
def replace_image_tags(image_id: str) -> Response:
    """Replace the tags of an image. New names make tags."""
    names, principal = _read_names(image_id), current_principal()
    return _answer(image_tags.replace(current_services().db, image_id, names, principal.stores, principal.by, requests.precondition()))


@blueprint.post("/images/<image_id>/tags")
@access_rules.requires("tags:write")
def add_image_tags(image_id: str) -> Response:
    """Add tags to an image. New names make tags."""
    names, principal = _read_names(image_id), current_principal()
    return _answer(image_tags.add(current_services().db, image_id, names, principal.stores, principal.by, requests.precondition()))


@blueprint.delete("/images/<image_id>/tags")
@access_rules.requires("tags:write")
def remove_image_tags(image_id: str) -> Response:
    """Remove tags from an image. Names of tags that it does not have are ignored."""
    names, principal = _read_names(image_id), current_principal()
    return _answer(image_tags.remove(current_services().db, image_id, names, principal.stores, principal.by, requests.precondition()))


@blueprint.delete("/images/<image_id>/tags/<tag_name>")
@access_rules.requires("tags:write")
def remove_image_tag(image_id: str, tag_name: str) -> Response:
    """Remove one tag from an image."""
    query.read({})
    check_image_id(image_id)
    name, principal = requests.read_tag_name(tag_name), current_principal()
    return _answer(image_tags.remove_one(current_services().db, image_id, name, principal.stores, principal.by, requests.precondition()))


def _read_names(image_id: str) -> list[str]:
    query.read({})
    check_image_id(image_id)
    return request_bodies.read(schemas.TagNames).tags


def _answer(image: Document) -> Response:
    shown = image_tags.show(current_services().db, image)
    response = json_response(serializers.image_tags(shown))
    response.headers["ETag"] = image_tags.etag(shown)
    return response
