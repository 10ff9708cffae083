"""Return, correct, move and delete one image."""

from flask import Blueprint, Response

from shared.catalog import image_changes, image_deletion, image_metadata
from shared.ledger import queries
from shared.storage import schema
from shared.storage.mongo import Document
from web import request_bodies, security_events
from web.http import access_rules, preconditions, query, responses
from web.http.authentication import current_principal
from web.http.path_ids import check_image_id
from web.image_serializer import ImageSerializer
from web.images.schemas import ImageChange
from web.services import current_services

blueprint = Blueprint("images", __name__)


@blueprint.get("/images/<string(length=36):image_id>")
@access_rules.requires("images:read")
def get_image(image_id: str) -> Response:
    """Return an image."""
    query.read({})
    check_image_id(image_id)
    return _image_response(queries.get_image(current_services().db, image_id, current_principal().stores))


@blueprint.patch("/images/<string(length=36):image_id>")
@access_rules.requires("images:write")
def change_image(image_id: str) -> Response:
    """Correct fields of an image, and return it to those who may read images."""
    query.read({})
    check_image_id(image_id)
    wanted, principal = request_bodies.read(ImageChange).changes(), current_principal()
    corrected = image_metadata.correct(
        current_services().db, image_id, principal.stores, wanted, by=principal.by, precondition=_check_if_match
    )
    if corrected.changed:
        security_events.record("image.changed", target=f"image:{image_id}", details={"fields": corrected.changed})
    if not principal.may("images:read"):
        return Response(status=204, headers={"ETag": image_changes.etag(corrected.image)})
    return _image_response(corrected.image)


@blueprint.delete("/images/<string(length=36):image_id>")
@access_rules.requires("images:write")
def delete_image(image_id: str) -> Response:
    """Delete an image and its files. With the last image of a batch, the batch is deleted."""
    services = current_services()
    query.read({})
    check_image_id(image_id)
    deleted = image_deletion.begin_delete(services.db, image_id, current_principal().stores, precondition=_check_if_match)
    details = {"batch": "deleted"} if deleted.with_batch else None
    image_deletion.complete(services.db, services.blobs, deleted)  # first, because the event can wait for MongoDB
    security_events.record("image.deleted", target=f"image:{image_id}", details=details)
    return Response(status=204)


def _check_if_match(image: Document) -> None:
    preconditions.check_if_match(image_changes.etag(image))


def _image_response(stored: Document) -> Response:
    """Return the response with an image, and its ETag. The image is converted in place."""
    etag = image_changes.etag(stored)
    for name in schema.hidden_fields(schema.Image):
        stored.pop(name, None)
    response = responses.json_response(ImageSerializer().image(stored))
    response.headers["ETag"] = etag
    return response
